"""Arrays in dicts, lists and tuples: changing each, for the adapters of other libraries and for the
states of memory cores.

Tests: tests/verify/test_trees.py.
"""

from collections.abc import Callable, Iterator
from typing import Any


def map_leaves(function: Callable, tree: Any, *others: Any) -> Any:
    """Return a tree of the same form with function(leaf, ...) for each leaf but None.

    Dicts, lists, tuples and NamedTuples are branches; ``others`` have the same ones. An iterator's
    values come one by one, as they are asked for.
    """
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_leaves(function, tree[key], *(z[key] for z in others)) for key in tree}
    if isinstance(tree, tuple | list):
        parts = [map_leaves(function, *values) for values in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, Iterator):
        return (map_leaves(function, value) for value in tree)
    return function(tree, *others)
