"""Many copies of one environment on a GPU: the CPU's loops, one row for each CUDA thread.

No rule of a game is written here: the kernels call `reset_rows` and `step_rows` of
minis5/envs/batch_loops.py, compiled around the environment's own functions. The results are meant
to be those of NativeVectorEnv to the last bit, floats included. Random numbers are integers; sin,
cos and log are the library's own (minis5/elementary.py); division and square root are rounded as
IEEE 754 wants; and a * b + c is not fused. So far this has been run in Numba's simulator and
compiled for GPUs, but not run on one.

All work is queued on the stream that CuPy is working on, the default stream without CuPy.

Leaves out: several GPUs in one process; Numba's cache on disk (a kernel compiles in about a
second).
Tests: tests/envs/test_cuda_envs.py with the simulator, tests/test_ptx.py as code for three
generations of GPUs, and, if there is a GPU, tests/gpu/test_envs.py.
"""

from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import gymnasium
import numpy as np

from minis5.arrays import DeviceError
from minis5.envs.actions import first_illegal
from minis5.envs.batch_loops import compile_loops
from minis5.envs.vector import NativeVectorEnv
from minis5.ops import form_of
from minis5.random import GENERATOR_SIZE, seed_to_key
from minis5_cuda.launch import (
    SIMULATED,
    as_numba,
    blocks,
    configured,
    cuda,
    device,
    is_cuda_ndarray,
    kernel,
    launch,
    no_contraction,
    stream,
)

# A multiprocessor takes at most 32 blocks: of 64 threads, they are its 2048. Small batches spread
# out.
BLOCK = 64  # threads
LEGACY = 1  # CUDA's handle of the default stream


def compiled(function, grid, *arguments):
    """Return a kernel compiled for arguments of these types, without contraction.

    It must be launched with such arguments only.
    """
    with no_contraction():
        function = function.specialize(*arguments)
    configured(function, grid)  # here, so that no launch warns of a small grid
    return function


EXACT: dict = {}  # kernel: compiled by exact_launch


def exact_launch(kernel, grid, block, *arguments):
    """Launch a kernel without contraction; its arguments must always have the same types."""
    if kernel not in EXACT:
        EXACT[kernel] = compiled(kernel, (grid, block), *map(as_numba, arguments))
    launch(EXACT[kernel], grid, block, *arguments)


class World(NamedTuple):
    """The arrays of n environments: their states, and what their last step returned."""

    ints: object  # int64 (n, Task.ints), one environment's numbers far apart
    floats: object  # float64 (n, Task.floats), likewise
    obs: object  # (n, row_size)
    final_obs: object  # (n, row_size): the last observations of the episodes that ended, or zeros
    reward: object  # float64 (n,)
    terminated: object  # bool (n,)
    truncated: object  # bool (n,)
    ended: object  # bool (n,)


@cache
def make_row_step(env):
    """Return a device function that steps row i of a World with ``actions`` (n, ...)."""
    _, step_rows = compile_loops(env)

    @device
    def step_row(i, params, world, actions):
        if world.ended[i]:  # in the step before: its final_obs is outdated
            for j in range(world.final_obs.shape[1]):
                world.final_obs[i, j] = 0
        outputs = (world.obs, world.final_obs, world.reward, world.terminated, world.truncated)
        step_rows(i, i + 1, params, world.ints, world.floats, actions, True, *outputs)
        world.ended[i] = world.terminated[i] or world.truncated[i]

    return step_row


@cache
def make_kernels(env):
    """Return `reset_rows` and `step_rows` as kernels for the environment `env`."""
    (reset_rows, _), step_row = compile_loops(env), make_row_step(env)

    @kernel
    def reset_kernel(params, world):
        i = cuda.grid(1)
        if i < world.ints.shape[0]:
            reset_rows(i, i + 1, params, world.ints, world.floats, world.obs)

    @kernel
    def step_kernel(params, world, actions):
        i = cuda.grid(1)
        if i < world.ints.shape[0]:
            step_row(i, params, world, actions)

    return reset_kernel, step_kernel


@kernel
def find_illegal(actions, low, high, illegal):
    """Set illegal[0] to 1 if a row of `actions` (n, k) is outside [low, high] (k,) or has a NaN."""
    i = cuda.grid(1)
    if i < actions.shape[0] and first_illegal(actions[i : i + 1], low, high) >= 0:
        illegal[0] = 1


def device_view(array):
    """Return `array` as Numba's device array, not copied; None if it is on the host.

    It waits for the array's stream unless that is the one on which the kernels run too.
    """
    if is_cuda_ndarray(array):
        return array
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return None
    return cuda.as_cuda_array(array, sync=interface.get("stream") not in (None, stream() or LEGACY))


def device_zeros(shape, dtype):
    return cuda.to_device(np.zeros(shape, dtype))


@contextmanager
def queue():
    """Yield the stream of the kernels, for copies in turn with them; wait for it in the end."""
    if SIMULATED:
        yield 0
    else:
        yield (numba_stream := cuda.external_stream(stream() or LEGACY))
        numba_stream.synchronize()


def copy_to_host(array):
    with queue() as numba_stream:
        return array.copy_to_host(stream=numba_stream)


def copy_to_device(array, mine):
    with queue() as numba_stream:
        mine.copy_to_device(array, stream=numba_stream)


@form_of(NativeVectorEnv)
class CudaVectorEnv(NativeVectorEnv):
    """`num_envs` environments on the current GPU.

    With the same seed, their episodes are those of NativeVectorEnv. Observations, rewards and flags
    are Numba's device arrays, which CuPy and others take without a copy (cupy.asarray(obs),
    torch.as_tensor(obs)); shapes and dtypes are NativeVectorEnv's. They are the environments' own:
    the next step or reset overwrites them.

    Parameters
    ----------
    env, task, num_envs, seed, first_index
        As in NativeVectorEnv.
    check_actions : bool
        Whether `step` waits for the GPU to check actions that are on it; if not, an illegal one is
        undefined behaviour.

    Attributes
    ----------
    world : World
        The arrays of all environments, for kernels that step them themselves (rl/persistent.py).
    actions : array (num_envs, *shape of one action)
        Where actions go that are not on the device, or in another form.
    module : module or Composed
        The environment ``env``.

    Raises
    ------
    DeviceError
        There is no GPU, or no driver for it.
    """

    def __init__(self, env, task, num_envs, seed=0, first_index=0, check_actions=True):
        if not cuda.is_available():
            raise DeviceError(
                "device: 'cuda' needs an NVIDIA GPU, its driver and its libraries, and something "
                "of it was not found; install the driver and pip install 'minis5[cuda]', or pass "
                "device='cpu'"
            )
        super().__init__(env, task, num_envs, seed, first_index)
        self.check_actions = check_actions
        check, n = self._check_actions, self.num_envs
        # Rows along the fast axis: neighbouring threads take one transfer.
        state = (np.array(array, order="F") for array in (self._ints, self._floats))
        rows, flags = [device_zeros(*self._rows) for _ in range(2)], (n, np.bool_)
        outputs = (*rows, device_zeros(n, np.float64), *(device_zeros(*flags) for _ in range(3)))
        self.world = World(*map(cuda.to_device, state), *outputs)
        self._ints, self._floats, *_ = self.world
        self.actions = device_zeros(check.shape, check.low.dtype)
        self._bounds = cuda.to_device(check.low), cuda.to_device(check.high)
        self._illegal = device_zeros(1, np.int64)
        self._grid = grid = blocks(n, BLOCK), BLOCK
        self.module = env
        reset_kernel, step_kernel = make_kernels(env)
        self._reset_rows = compiled(reset_kernel, grid, task.params, self.world)
        self._step_rows = compiled(step_kernel, grid, task.params, self.world, self.actions)
        self._find_illegal = compiled(
            find_illegal, grid, self._action_rows(self.actions), *self._bounds, self._illegal
        )

    def _run(self, function, *arguments):
        launch(function, *self._grid, self.task.params, self.world, *arguments)

    def observations(self, rows):
        """Return `rows` (n, row_size) as gymnasium.vector shapes them: the columns, for a Tuple."""
        space = self.single_observation_space
        if isinstance(space, gymnasium.spaces.Tuple):
            return tuple(rows[:, j] for j in range(len(space)))
        return rows.reshape(rows.shape[0], *space.shape)

    def _action_rows(self, actions):
        return actions.reshape(self.num_envs, self._check_actions.low.size)

    def reset(self, *, seed=None, options=None):
        """Begin a new episode in every environment.

        A `seed` (int) begins the streams anew; without one they go on.
        """
        if seed is not None:
            self._key = seed_to_key(seed)
            copy_to_device(self._generators(), self._ints[:, :GENERATOR_SIZE])
        self._run(self._reset_rows)
        self._started = True
        return self.observations(self.world.obs), {}

    def step(self, actions):
        """Step every environment.

        Parameters
        ----------
        actions : array (num_envs, *shape of one action)
            An array with __cuda_array_interface__ is on the device. If it is C-contiguous and int64
            (for Box: of the space's dtype), it is read where it is. Otherwise it goes through the
            host, as all others do.

        Returns
        -------
        observations, rewards (float64), terminated (bool), truncated (bool), infos
            The next step overwrites them. infos always has "final_obs", the ended environments'
            observations before the reset (zeros in the other rows), and "_final_obs", bool
            (num_envs,), true for those environments.

        Raises
        ------
        ValueError
            An action has a wrong dtype, shape or value. No environment has been stepped then. With
            check_actions=False, values on the device are not checked.
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded(
                "step: the environments have no state yet; call reset() first"
            )
        self._run(self._step_rows, self._legal(actions))
        _, _, obs, final_obs, reward, terminated, truncated, ended = self.world
        infos = {"final_obs": self.observations(final_obs), "_final_obs": ended}
        return self.observations(obs), reward, terminated, truncated, infos

    def _legal(self, actions):
        """Return the actions, checked, as an array for the kernel: the caller's own if possible."""
        mine, array = self.actions, device_view(actions)
        if (
            array is None
            or array.shape != mine.shape
            or array.dtype != mine.dtype
            or not array.is_c_contiguous()
        ):
            copy_to_device(
                self._check_actions(actions if array is None else copy_to_host(array)), mine
            )
            return mine
        if self.check_actions:
            launch(
                self._find_illegal,
                *self._grid,
                self._action_rows(array),
                *self._bounds,
                self._illegal,
            )
            if copy_to_host(self._illegal)[0]:
                copy_to_device(np.zeros(1, np.int64), self._illegal)
                self._check_actions(copy_to_host(array))  # raises
        return array

    def get_state(self):
        """Return what NativeVectorEnv.get_state returns: arrays on the host."""
        return {
            name: np.array(copy_to_host(a), order="C")
            for name, a in (("ints", self._ints), ("floats", self._floats))
        }

    @staticmethod
    def _fill(mine, array):
        copy_to_device(np.array(array, order="F"), mine)
