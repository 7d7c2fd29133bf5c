"""Leaves of trees are changed one by one, and the form stays."""

from typing import NamedTuple

from minis5.verify.trees import map_leaves


class Pair(NamedTuple):
    first: object
    second: object


def test_the_form_stays():
    tree = {"a": [1, (2, None)], "b": Pair(3, {"c": 4}), "d": ()}
    assert map_leaves(lambda x: 10 * x, tree) == {
        "a": [10, (20, None)],
        "b": Pair(30, {"c": 40}),
        "d": (),
    }
    assert isinstance(map_leaves(str, tree)["b"], Pair)


def test_an_iterator_is_followed_as_it_goes():
    seen = []
    values = map_leaves(lambda x: seen.append(x) or -x, iter([1, 2]))
    assert seen == [] and next(values) == -1 and seen == [1] and list(values) == [-2]
