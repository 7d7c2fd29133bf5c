"""Which check in the simulator tests which kernel by itself, and whether the check launches it.

A kernel that is not here must be launched by a Case of kernel_cases.py or fused_cases.py
(test_kernels.py). simulated_main.py watches what a check launches. A check is a function of a
module in tests/, which `simulated` calls; names of kernels are those of minis5_cuda/ptx.py.
"""

from collections.abc import Iterable
from contextlib import contextmanager

GRU, LSTM, ATTENTION = (f"test_{core}.on_the_device" for core in ("gru", "lstm", "attention"))
CHECKED: dict[str, Iterable[str]] = {  # check: kernels
    "scan_checks.everything": (
        "scan_kernels.forward_scan",
        "scan_kernels.backward_scan",
        "scan_kernels.summary",
    ),
    "scan_checks.sequential": (
        "scan_kernels.forward_sequential",
        "scan_kernels.backward_sequential",
    ),
    "scan_checks.look_back": ("scan_kernels.forward_look_back", "scan_kernels.backward_look_back"),
    "scan_checks.textbook": ("scan_textbook.scan_kernel",),
    GRU: ("gru.gru_forward_kernel", "gru.gru_backward_kernel"),
    LSTM: ("lstm.lstm_forward_kernel", "lstm.lstm_backward_kernel"),
    ATTENTION: (
        "attention.attend_step_kernel",
        "attention.sinusoids_kernel",
        "attention_loops.attend_forward_kernel",
        "attention_loops.attend_keys_kernel",
        "attention_loops.attend_queries_kernel",
        "attention_loops.number_steps_kernel",
    ),
    "columns_checks.taken": ("columns.take_columns_kernel",),
    "columns_checks.joined": ("columns.join_columns_kernel",),
    "device_checks.random_numbers": ("random.fill_uniform_kernel", "random.fill_normal_kernel"),
    "device_checks.normalised_advantages": ("ppo.moments_kernel", "ppo.normalise_kernel"),
    "persistent_checks.edges": ("persistent_kernel.rollout_kernel",),
    "device_env_checks.simulate": ("envs.reset_kernel", "envs.step_kernel"),
    "device_env_checks.misuse": ("envs.find_illegal",),
}


def name_of(kernel):
    """Return a simulated kernel's name, as ptx.Code.name."""
    return f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"


@contextmanager
def watched(check):
    """Assert at the end that what is called within has launched the kernels of ``check``."""
    from minis5_cuda import launch

    queue, launched = launch.queue, set()

    def note(kernel, grid, block, arguments):
        launched.add(name_of(kernel))
        return queue(kernel, grid, block, arguments)

    launch.queue = note
    yield
    launch.queue = queue
    missing = set(CHECKED.get(check, ())) - launched
    assert not missing, f"{check} does not launch {', '.join(sorted(missing))}"
