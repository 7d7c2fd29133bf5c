"""Parsing of command lines, with one-line errors that name the closest option or command.

Tests: tests/run/test_cli.py.
"""

import argparse
import difflib


class Parser(argparse.ArgumentParser):
    """argparse's parser with one-line errors that name the closest option or command."""

    def error(self, message):
        raise ValueError(message)

    def parse_args(self, argv):
        options, rest = self.parse_known_args(argv)
        for token in rest:
            name = token.split("=")[0]
            known = [
                option[2:]
                for action in self._actions
                for option in action.option_strings
                if option[1] == "-"
            ]
            close = difflib.get_close_matches(name.lstrip("-"), known, n=1)
            hint = (
                f"did you mean --{close[0]}?"
                if close
                else f"{self.prog} --help lists what there is"
            )
            raise ValueError(f"unknown argument {name}; {hint}")
        return options

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            close = difflib.get_close_matches(
                str(value), [str(choice) for choice in action.choices], n=1
            )
            hint = (
                f"did you mean {close[0]}?"
                if close
                else f"expected one of {', '.join(map(str, action.choices))}"
            )
            raise ValueError(f"unknown {action.metavar or action.dest} {value!r}; {hint}")


def number(convert, kind, least=None):
    """An argparse type with an error that says what was expected."""

    def parse(text):
        try:
            value = convert(text.replace("_", ""))
        except ValueError:
            value = None
        if value is None or (least is not None and value < least):
            bound = "" if least is None else f" of at least {least}"
            raise argparse.ArgumentTypeError(f"expected {kind}{bound}, got {text!r}")
        return value

    return parse


integer = number(int, "an integer", 0)
count = number(lambda text: int(float(text)), "a count", 1)  # 1e6 is a count too
real = number(float, "a number")
