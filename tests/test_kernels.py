"""Every kernel is tested by itself; and those that are tested nowhere else are here.

A kernel is known from the examples of minis5_cuda/ptx_examples.py, in which none is missing
(test_ptx.py).
"""

import ast
from pathlib import Path

from fused_cases import heads
from kernel_checks import DTYPES, arguments, check_in_simulator, launcher_of, tables
from minis5_cuda import ptx
from tested_kernels import CHECKED

TESTS = Path(__file__).parent


def test_kernels_in_the_simulator_are_the_steps_of_the_cpu(tmp_path):
    check_in_simulator("fused", tmp_path, heads)


def launched_by_cases():
    """Return the kernels of all cases: their launchers' on NumPy arrays, where nothing runs."""
    found = set()
    for cases in tables()[0].values():
        for key, made in arguments(cases, DTYPES[:1], [(4, 2)]).items():
            with ptx.recorder() as codes:
                launcher_of(cases[key.case])(*made)
            found |= {code.name for code in codes}
    return found


def test_every_kernel_is_tested_by_itself():
    """Add a Case for a new kernel, or a check and a line of tested_kernels.py."""
    every = {code.name for code in ptx.record([name for name in ptx.EXAMPLES if name != "envs"])}
    every |= {"envs.reset_kernel", "envs.step_kernel", "envs.find_illegal"}
    cases, checks = launched_by_cases(), {name for names in CHECKED.values() for name in names}
    assert {"s5.skip_gelu_forward_kernel", "adam.update_kernel"} <= cases and not cases & checks
    assert every == cases | checks, sorted(every ^ (cases | checks))


def test_every_check_is_called_by_a_test():
    """In the simulator, where tested_kernels.watched sees what it launches."""
    texts = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    calling = "\n".join(text for path, text in texts.items() if "gpu" not in path.parts)
    for check in CHECKED:
        module, name = check.split(".")
        (path,) = TESTS.rglob(f"{module}.py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, check
        assert f'"{name}' in calling, f"{check}: no test calls it"
