"""The model, the collector and the trainer on simulated kernels and simulated CuPy arrays.

They are compared with the same on NumPy arrays (device_checks.py). On a GPU:
tests/gpu/test_training.py.
"""

import device_checks
import pytest
from device_checks import CORES, ENVS, ITERATIONS, name_of
from sampling import sampled
from simulator import simulated


def in_simulator(call):
    simulated(device_checks.__file__, call)


@pytest.mark.parametrize(
    ("name", "env_id"),
    sampled([(name, ENVS[i % len(ENVS)]) for i, name in enumerate(CORES)], unpack=True),
)
def test_gradients(name, env_id):
    in_simulator(f"gradients({name!r}, {env_id!r})")


def test_images():
    in_simulator("images()")


def test_irregular_steps():
    in_simulator("irregular_steps()")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ITERATIONS, ids=name_of)
def test_iterations_equal_those_of_the_cpu(arguments):
    in_simulator(f"iterations{arguments!r}")


def test_a_whole_run_moves_between_devices(tmp_path):
    in_simulator(f"whole_run({str(tmp_path / 'run')!r})")


def test_mistakes(tmp_path):
    in_simulator(f"mistakes({str(tmp_path / 'run')!r})")


def test_random_numbers():
    in_simulator("random_numbers()")


def test_normalised_advantages():
    in_simulator("normalised_advantages()")


def test_public_scan():
    in_simulator("public_scan()")


def test_the_simulated_cupy_has_nothing_that_cupy_lacks():
    cupy = pytest.importorskip("cupy")
    import simulated_cupy

    assert all(hasattr(cupy, name) for name in simulated_cupy.FUNCTIONS)
    assert all(hasattr(cupy.ndarray, name) for name in simulated_cupy.METHODS)
