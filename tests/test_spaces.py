"""ObservationEncoder: vectors by hand for each space, batches of gymnasium.vector, errors."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from kernel_checks import check_in_simulator

from minis5.spaces import ObservationEncoder


def test_box_passes_through_as_float32():
    flat = ObservationEncoder(spaces.Box(-1, 1, (2, 2), np.float64)).observation_vector(
        np.array([[0.1, 0.2], [0.3, 0.4]])
    )
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat, np.array([0.1, 0.2, 0.3, 0.4], np.float32))


def test_integer_box_is_not_one_hot():
    pixels = np.array([[0, 255, 3]], np.uint8)
    np.testing.assert_array_equal(
        ObservationEncoder(spaces.Box(0, 255, (3,), np.uint8)).observation_vector(pixels),
        [[0, 255, 3]],
    )


def test_discrete_counts_from_start():
    f = ObservationEncoder(spaces.Discrete(3, start=-1))
    assert f.size == 3
    np.testing.assert_array_equal(f.observation_vector(-1), [1, 0, 0])
    np.testing.assert_array_equal(f.observation_vector(np.array([1, 0])), [[0, 0, 1], [0, 1, 0]])


def test_multi_discrete_counts_from_start():
    f = ObservationEncoder(spaces.MultiDiscrete([2, 3], start=[0, 5]))
    np.testing.assert_array_equal(
        f.observation_vector(np.array([[1, 5], [0, 7]])), [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    )


def test_two_dimensional_multi_discrete_and_multi_binary():
    f = ObservationEncoder(spaces.MultiDiscrete([[2, 2], [2, 2]]))
    np.testing.assert_array_equal(
        f.observation_vector(np.array([[0, 1], [1, 0]])), [1, 0, 0, 1, 0, 1, 1, 0]
    )
    f = ObservationEncoder(spaces.MultiBinary([2, 2]))
    np.testing.assert_array_equal(
        f.observation_vector(np.array([[0, 1], [1, 1]], np.int8)), [0, 1, 1, 1]
    )


def test_nested_spaces_in_the_order_of_the_space():
    space = spaces.Dict(
        b=spaces.Discrete(2), a=spaces.Tuple((spaces.MultiBinary(2), spaces.Box(-9, 9, (1,))))
    )
    obs = {
        "b": np.array([0, 1]),
        "a": (np.array([[1, 0], [1, 1]], np.int8), np.array([[2.5], [-3]], np.float32)),
    }
    order = list(space.spaces)
    flat = {"a": [[1, 0, 2.5], [1, 1, -3]], "b": [[1, 0], [0, 1]]}
    np.testing.assert_array_equal(
        ObservationEncoder(space).observation_vector(obs), np.hstack([flat[key] for key in order])
    )


SPACES = [
    spaces.Box(-1, 1, (3,)),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiBinary(6),
    spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, ()))),
    spaces.Dict(x=spaces.Discrete(3), y=spaces.Dict(z=spaces.MultiBinary(2))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_agrees_with_gymnasium_one_by_one_and_in_batches(space):
    batched = batch_space(space, 7)
    batched.seed(0)
    space.seed(1)
    f = ObservationEncoder(space)
    batch = batched.sample()
    rows = f.observation_vector(batch)
    assert (
        rows.shape == (7, f.size) and f.size == spaces.flatdim(space) and rows.dtype == np.float32
    )
    for row, single in zip(rows, spaces_iterate(batched, batch), strict=True):
        np.testing.assert_array_equal(row, spaces.flatten(space, single).astype(np.float32))
        np.testing.assert_array_equal(row, f.observation_vector(single))


def spaces_iterate(batched, batch):
    from gymnasium.vector.utils import iterate

    return iterate(batched, batch)


def test_any_number_of_batch_axes():
    f = ObservationEncoder(spaces.Discrete(4))
    obs = np.arange(24).reshape(2, 3, 4) % 4
    np.testing.assert_array_equal(f.observation_vector(obs), np.eye(4, dtype=np.float32)[obs])
    assert f.observation_vector(np.zeros((0,), int)).shape == (0, 4)


def test_the_result_is_new_and_the_input_untouched():
    f = ObservationEncoder(spaces.Box(-1, 1, (2,)))
    obs = np.ones((3, 2), np.float32)
    f.observation_vector(obs)[:] = 5
    assert (obs == 1).all()
    values = np.array([2, 3])
    ObservationEncoder(spaces.Discrete(2, start=2)).observation_vector(values)
    assert values.tolist() == [2, 3]


def test_large_finite_values_are_finite():
    huge = np.full((1, 4), 3e38, np.float32)
    np.testing.assert_array_equal(
        ObservationEncoder(spaces.Box(-np.inf, np.inf, (4,))).observation_vector(huge), huge
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_finite(bad, dtype):
    obs = np.zeros((3, 2), dtype)
    with np.errstate(over="ignore"):
        obs[1, 0] = bad
    with pytest.raises(
        ValueError, match=r"observation: expected finite .* batch row 1, component 0; check"
    ):
        ObservationEncoder(spaces.Box(-1, 1, (2,))).observation_vector(obs)


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match="expected finite"):
        ObservationEncoder(spaces.Box(-1, 1, (2,))).observation_vector(np.array([np.inf, -np.inf]))


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (
            spaces.Discrete(3),
            np.array([0, 3]),
            r"observation: expected values in \[0, 3\), got 3 at batch row 1",
        ),
        (
            spaces.Discrete(3, start=1),
            np.array([0]),
            r"expected values in \[1, 4\), got 0 at batch row 0",
        ),
        (
            spaces.Discrete(3),
            np.array([0.0]),
            "observation: expected integers, got dtype float64; cast",
        ),
        (
            spaces.MultiDiscrete([2, 3]),
            np.array([[0, 2], [0, -1]]),
            r"\[0, 3\), got -1 at batch row 1, component 1",
        ),
        (
            spaces.MultiDiscrete([2, 3]),
            np.array([0, 2, 1]),
            r"expected shape \(..., 2\), got \(3,\)",
        ),
        (spaces.MultiBinary(2), np.array([0, 2]), "observation: expected zeros and ones, got 2"),
        (
            spaces.Box(-1, 1, (2,)),
            np.zeros((2, 3)),
            r"observation: expected shape \(..., 2\), got \(2, 3\); pass",
        ),
        (spaces.Box(-1, 1, (2, 3)), np.zeros(3), r"expected shape \(..., 2, 3\), got \(3,\)"),
        (
            spaces.Box(-1, 1, (2,)),
            np.array(["a", "b"]),
            "observation: expected numbers, got dtype <U1",
        ),
        (spaces.Box(-1, 1, (2,)), [None, None], "expected numbers, got dtype object"),
        (
            spaces.Dict(a=spaces.Discrete(2)),
            {"b": 1},
            r"expected a part at \['a'\], got dict without it; pass a dict",
        ),
        (
            spaces.Tuple([spaces.Discrete(2)]),
            np.array(1),
            r"observation: expected a part at \[0\], got ndarray",
        ),
        (
            spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,))),
            {"a": np.zeros(3, int), "b": np.zeros((4, 2))},
            r"observation\['b'\]: expected shape \(..., 2\) with batch axes \(3,\), got \(4, 2\)",
        ),
    ],
)
def test_bad_observations(space, obs, message):
    with pytest.raises(ValueError, match=message):
        ObservationEncoder(space).observation_vector(obs)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), "Box"])
def test_unsupported_spaces(space):
    with pytest.raises(
        ValueError, match="which is not supported; supported are Box, Discrete, MultiDiscrete"
    ):
        ObservationEncoder(space)
    if not isinstance(space, str):
        with pytest.raises(ValueError, match=r"observation\['inner'\]\[1\] is"):
            ObservationEncoder(spaces.Dict(inner=spaces.Tuple((spaces.Discrete(2), space))))


def test_empty_space():
    with pytest.raises(ValueError, match="got the empty"):
        ObservationEncoder(spaces.Tuple(()))


def test_the_kernel_in_the_simulator_is_the_loop(tmp_path):
    check_in_simulator("spaces", tmp_path)
