"""Code that a text names: the module before an id's colon, and wrappers, "module:Name".

    minis5.make_vec("echo:Echo-v0", 8, wrappers=["gymnasium.wrappers:FlattenObservation"])

A run's config.json keeps these texts. `foreign_modules` says which modules a configuration names
that are neither minis5's nor Gymnasium's: whoever reads a configuration decides whether to trust
them before anything is imported.

Leaves out: wrappers of whole vector environments. Tests: tests/envs/foreign/test_named.py.
"""

import difflib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gymnasium

KNOWN = {f"gymnasium.wrappers:{name}" for name in gymnasium.wrappers.__all__}
KNOWN |= {f"minis5.envs.foreign.wrappers:{name}" for name in ("RandomProjection", "Trials")}
KNOWN |= {"minis5.envs.foreign.partial:KeepNumbers"}
FORM = "gymnasium.wrappers:FlattenObservation, or a pair of that and a dict of its options"
# module: the package of the index that has it
PACKAGES = {
    "ale_py": "ale-py",
    "minigrid": "minigrid",
    "miniworld": "miniworld",
    "popgym": "popgym",
}
MODULES = {  # how an id begins: the module that registers it
    "ALE/": "ale_py",
    "BabyAI-": "minigrid",
    "MiniGrid-": "minigrid",
    "MiniWorld-": "miniworld",
    "popgym-": "popgym",
}


class Wrapper(NamedTuple):
    """A wrapper that is yet to be applied to an environment."""

    name: str  # "module:Name", or a function's own name
    wrap: Callable | None  # None: the name has not been looked up
    options: dict[str, Any]


def close_names(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean …?)" with up to three of `names`, or nothing."""
    matches = difflib.get_close_matches(name, list(names), n=3)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def import_named(argument: str, text: str, module: str) -> Any:
    """Import a module that the `text` given for `argument` names.

    Raises
    ------
    ValueError
        There is no such module. An error inside it is raised as it is.
    """
    reason = "not the name of a module"
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
        try:
            return pkgutil.resolve_name(f"{module}:")
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and one that it imports is missing
            reason = str(error)
    remedy = "put PYTHONPATH=. before the command if its file is in this folder"
    if module in PACKAGES:
        remedy = f"pip install {PACKAGES[module]}"
    raise ValueError(f"{argument}: cannot import the module of {text!r} ({reason}); {remedy}")


def import_environment(env_id: str) -> str:
    """Import the module that an id names before its colon, if any; return the rest of the id."""
    module, colon, name = env_id.rpartition(":")
    if colon:
        import_named("env_id", env_id, module)
    return name


def as_wrappers(wrappers: Any) -> list[Wrapper]:
    """Return what a user may give for `wrappers` as a list, innermost first; nothing is imported.

    Parameters
    ----------
    wrappers : sequence or None
        Each item is "module:Name", a function from environment to environment (a class, say), or a
        pair (list or tuple) of one of these and a dict of keyword arguments.

    Raises
    ------
    ValueError
        An item is something else.
    """
    if wrappers is None:
        return []
    if isinstance(wrappers, str) or not isinstance(wrappers, list | tuple):
        got = f"{wrappers!r}; put it into a list"
        raise ValueError(f"wrappers: expected a list of names such as {FORM}, got {got}")
    return [_as_wrapper(item) for item in wrappers]


def _as_wrapper(item):
    pair = isinstance(item, list | tuple) and len(item) == 2
    what, options = item if pair else (item, {})
    named = isinstance(what, str)
    keywords = isinstance(options, dict) and all(isinstance(name, str) for name in options)
    if not keywords or not (named or callable(what)):
        raise ValueError(f"wrappers: expected {FORM}, got {item!r}; write it so")
    if named and not re.fullmatch(r"[\w.]+:[\w.]+", what):
        close = close_names(f"gymnasium.wrappers:{what}", KNOWN)
        raise ValueError(f"wrappers: expected {FORM}, got {what!r}{close}; write module:Name")
    if named:
        return Wrapper(what, None, options)
    return Wrapper(getattr(what, "__qualname__", repr(what)), what, options)


def find_wrappers(wrappers: Any) -> list[Wrapper]:
    """Return `as_wrappers` with every name looked up, and its options compared with its signature.

    Raises
    ------
    ValueError
        There is no such module, nothing of that name in it, or it takes other options.
    """
    found = []
    for name, wrap, options in as_wrappers(wrappers):
        if wrap is None:
            wrap = _look_up(name)
        if isinstance(wrap, type) and issubclass(wrap, gymnasium.vector.VectorEnv):
            remedy = "wrap the vector environment by hand and give it to minis5.PPO"
            raise ValueError(f"wrappers: {name} wraps a whole vector environment; {remedy}")
        if complaint := misfit(wrap, (None,), options):
            raise ValueError(
                f"wrappers: {name} {complaint}; give its options as [name, {{option: value}}], "
                "or on the command line --wrapper 'module:Name={\"option\": value}'"
            )
        found.append(Wrapper(name, wrap, options))
    return found


def _look_up(name):
    module, _, attribute = name.partition(":")
    owner = import_named("wrappers", name, module)
    try:
        found = pkgutil.resolve_name(name)
    except AttributeError as error:
        close = close_names(attribute, dir(owner))
        remedy = "check the name"
        raise ValueError(f"wrappers: {module} has no {attribute}{close}; {remedy}") from error
    if not callable(found):
        raise ValueError(f"wrappers: expected a class at {name}, got {found!r}; check the name")
    return found


def misfit(function: Callable, arguments: tuple, options: dict[str, Any]) -> str:
    """Return what is wrong with calling `function` so, in words; "" if nothing can be said."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C, say
        return ""
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        names = [
            name
            for name, parameter in list(signature.parameters.items())[len(arguments) :]
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        known = f"its options are {', '.join(names)}" if names else "it has no options"
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        unknown = [name for name in options if name not in names]
        if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
            close = close_names(unknown[0], names)
            return f"got an unexpected keyword argument {unknown[0]!r}{close}; {known}"
        return f"{error}; {known}"
    return ""


def apply(env: gymnasium.Env, wrappers: Iterable[Wrapper]) -> gymnasium.Env:
    """Return the environment within `wrappers`, the first one innermost.

    Raises
    ------
    ValueError
        A wrapper raised an error, or made no environment.
    """
    for name, wrap, options in wrappers:
        assert wrap is not None
        try:
            made = wrap(env, **options)
        except Exception as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ValueError(
                f"wrappers: {name} cannot wrap {env} ({what}); change its options or their order"
            ) from error
        if not isinstance(made, gymnasium.Env):
            expected = "a gymnasium.Env, such as a gymnasium.Wrapper"
            raise ValueError(f"wrappers: expected {name} to return {expected}, got {made!r}; do so")
        env = made
    return env


def wrappers_to_json(wrappers: Any) -> list[list[Any]]:
    """Return `wrappers` as config.json keeps them: a list of [name, options].

    Raises
    ------
    ValueError
        One is a function, or an option is not a JSON value.
    """
    kept: list[list[Any]] = []
    for name, wrap, options in as_wrappers(wrappers):
        if wrap is not None:
            module = getattr(wrap, "__module__", "module")
            raise ValueError(
                f"wrappers: expected names, because config.json cannot keep the function {name}; "
                f"pass its name, such as '{module}:{name}'"
            )
        check_json(f"wrappers: options of {name}", options)
        kept.append([name, options])
    return kept


def check_json(name: str, options: Any) -> dict[str, Any]:
    """Return `options`; raise ValueError unless it is a dict that JSON keeps as it is."""
    if not isinstance(options, dict):
        raise ValueError(f"{name}: expected a dict, got {options!r}; pass {{'option': value}}")
    try:
        again = json.loads(json.dumps(options))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected values that JSON can hold, for config.json; got {error}; "
            "pass numbers, texts, lists or dicts"
        ) from error
    if repr(again) != repr(options):
        changed = next((key for key in options if repr(again.get(key)) != repr(options[key])), "")
        raise ValueError(
            f"{name}: expected values that JSON keeps as they are, for config.json; got "
            f"{changed!r}: {options.get(changed)!r}; pass lists instead of tuples, texts as keys"
        )
    return options


def foreign_modules(env_id: str, wrappers: Any) -> list[str]:
    """Return the modules that would be imported by name, but for minis5's and Gymnasium's own.

    Parameters
    ----------
    env_id : str
        As for `minis5.make_vec`: "module:Env-v0" names a module.
    wrappers : sequence
        As for `as_wrappers`; functions name no module. Only the names in KNOWN count as our own,
        because a module also holds what it imports.

    Returns
    -------
    list of str
        In order, each once.
    """
    module = env_id.rpartition(":")[0]
    modules = [module] if module and module.split(".")[0] not in ("minis5", "gymnasium") else []
    names = [name for name, wrap, _ in as_wrappers(wrappers) if wrap is None]
    modules += [name.partition(":")[0] for name in names if name not in KNOWN]
    return list(dict.fromkeys(modules))
