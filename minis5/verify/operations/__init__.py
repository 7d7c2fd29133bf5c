"""The operations that the kit checks: one file each, with its cases and the faults it knows.

scan        the resettable recurrence; the sizes, resets and numbers that others reuse
scan_vjp    its adjoint
"""

from minis5.verify.case import Operation
from minis5.verify.operations import adam, gae, ppo_loss, scan, scan_vjp

OPERATIONS: dict[str, Operation] = {
    module.OPERATION.name: module.OPERATION for module in (scan, scan_vjp, gae, ppo_loss, adam)
}
