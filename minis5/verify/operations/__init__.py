"""The operations that the kit checks: one file each, with its cases and the faults it knows.

scan        the resettable recurrence; the sizes, resets and numbers that others reuse
scan_vjp    its adjoint; exact: both without rounding errors
ssm         the S5 layer; ssm_vjp its gradients; ssm_stages: both; ssm_faults, ssm_vjp_faults: wrong
            ones
gae         generalised advantage estimation; gae_faults
ppo_loss    PPO's loss and its gradients; ppo_parts: it; ppo_faults, ppo_policy_faults: wrong ones
adam        Adam; adam_faults
replay      what a recurrent learner keeps of rollouts; rollouts: scripts and a toy network,
            our_rollouts: minis5's collector with it
training    a whole PPO update of a tiny agent; update, training_faults: it, right and wrong
envs        episodes of native tasks, for ports to other languages
"""

from minis5.verify.case import Operation
from minis5.verify.operations import (
    adam,
    envs,
    gae,
    ppo_loss,
    replay,
    scan,
    scan_vjp,
    ssm,
    ssm_vjp,
    training,
)

_MODULES = (scan, scan_vjp, ssm, ssm_vjp, gae, ppo_loss, adam, replay, training, envs)
OPERATIONS: dict[str, Operation] = {m.OPERATION.name: m.OPERATION for m in _MODULES}
