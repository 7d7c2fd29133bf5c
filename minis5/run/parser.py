"""Parsing of command lines, with one-line errors that name the closest option or command.

Leaves out: the commands themselves (commands.py). Tests: tests/run/test_cli.py.
"""

import argparse
import difflib
import json
import re
from collections.abc import Mapping


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are ValueErrors of one line with the closest known name.

    ``advice`` has what to answer for options that other programs have (other_names.py).
    """

    advice: Mapping[str, str] = {}

    def error(self, message):
        raise ValueError(message)

    def parse_args(self, argv):
        many = any(action.nargs == "*" for action in self._get_positional_actions())
        parse = self.parse_known_intermixed_args if many else self.parse_known_args
        options, rest = parse(argv)  # intermixed: an option may stand between the positionals
        for token in rest:
            raise self._unknown(token.split("=")[0])
        return options

    def _unknown(self, name):
        """Return the error that there is no such option."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        known = [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
        if advice := self.advice.get(name.lstrip("-").replace("_", "-")):
            return ValueError(f"unknown argument {name}; {advice}")
        if close := difflib.get_close_matches(name.lstrip("-"), known, n=1):
            return ValueError(f"unknown argument {name}; did you mean --{close[0]}?")
        return ValueError(f"unknown argument {name}; {self.prog} --help lists what there is")

    def parse_table(self, table):
        """Return what the options of a file parse to, as `parse_args` does.

        Parameters
        ----------
        table : mapping
            Name of an option or a positional: its value, of the types that TOML has.
        """
        actions = {flag: action for action in self._actions for flag in action.option_strings}
        tokens = []
        for name, value in table.items():
            action = actions.get(f"--{name}")
            if any(name == positional.dest for positional in self._get_positional_actions()):
                tokens.append(str(value))
            elif action is None:
                raise self._unknown(f"--{name}")
            elif action.nargs == 0:  # a switch
                if not isinstance(value, bool):
                    raise ValueError(f"{name}: expected true or false, got {value!r}; write true")
                tokens += [f"--{name}"] if value else []
            else:
                several = isinstance(action, argparse._AppendAction)
                parts = _each(value) if several else [option_text(value)]
                tokens += [f"--{name}={part}" for part in parts]
        return self.parse_args(tokens)

    def _check_value(self, action, value):
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        raise ValueError(f"unknown {action.metavar or action.dest} {value!r}; {hint}")


def option_text(value):
    """Return a value as it is typed on a command line: 64,64 for a list, none, true."""
    if isinstance(value, list | tuple):
        return ",".join(map(option_text, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _each(value):
    """Return the texts of an option that may be given again and again: of a table, name=JSON."""
    if isinstance(value, dict):
        return [f"{name}={json.dumps(item)}" for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    pairs = [item if isinstance(item, list | tuple) else (item, {}) for item in items]
    return [f"{name}={json.dumps(more)}" if more else str(name) for name, more in pairs]


def number(convert, kind, least=None):
    """Return an argparse type, whose error says what was expected.

    Parameters
    ----------
    convert : callable
        Text → number; raises ValueError for other text.
    kind : str
        The number's kind, for the message: "an integer".
    least : number, optional
        The smallest number that is accepted.
    """

    def parse(text):
        try:
            value = convert(text.replace("_", ""))
        except (ValueError, OverflowError):
            value = None
        if value is None or (least is not None and value < least):
            bound = "" if least is None else f" of at least {least}"
            raise argparse.ArgumentTypeError(f"expected {kind}{bound}, got {text!r}")
        return value

    return parse


THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


def _scaled(text):
    """Return the number that a text such as 1e6, 500k or 2.5M says."""
    amount, letter = re.fullmatch(r"(.*?)([kmb]?)", text.strip(), re.IGNORECASE).groups()
    return float(amount) * THOUSANDS[letter.lower()]


integer = number(int, "an integer", 0)
count = number(lambda text: round(_scaled(text)), "a count", 1)  # 1e6 and 10M are counts too
real = number(float, "a number")


def seeds(text):
    """Return the seeds that "0-4" or "0,2,5" names, a tuple."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(end or match[1]) for end in match.groups()) if match else (1, 0)
        found += range(first, last + 1) if last - first < 1000 else ()
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected seeds such as 0-4 or 0,2,5, got {text!r}")
    return tuple(found)


def env_option(text):
    """Return name and value of "name=value"; the value is JSON, or else a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def add_env_option(parser):
    """Add --env-option to a Parser."""
    parser.add_argument(
        "--env-option",
        type=env_option,
        action="append",
        metavar="NAME=VALUE",
        help="for the environment",
    )


def add_trust(parser, when=""):
    """Add --trust to a Parser; `when`: how its help begins."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help=f"{when}run code that the run's files name (modules in config.json, pickled "
        "environments in state.npz); only for files of someone whom you trust",
    )
