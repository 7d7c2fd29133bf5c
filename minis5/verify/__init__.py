"""What others check their scan, layer, environment and PPO with.

``import minis5`` does not import it. In the order in which to read it:

    flags        what a case asks of a function, by name
    case         Case: inputs and what they must give; Operation: how to try a function on cases
    compare      the first wrong number, and how tightly numbers are compared
    report       Report: lines, summary by flag, report.json, JUnit XML
    judge        from outputs to a result with its probable cause
    operations/  the cases and known faults of each operation
    checks       check_scan and the others, for your own tests; learner_checks: loss, Adam, PPO
    vectors      the cases as files, for any language (npy, readme); folders: what a program wrote
    replay       check_replay and check_rollout: memory cores, and what a recurrent learner keeps
    environment  check_env: is this environment one of ours? observers/ know the rules, episodes
                 plays, samples compares distributions

When needed:

    gradients    backward passes against central differences
    memory_core  checks of one of minis5's memory cores
    lockstep     an environment side by side with another
    torch, jax   adapters for functions of PyTorch and JAX; imported only when asked for
"""

from minis5.verify.checks import check_gae, check_scan, check_scan_vjp, check_ssm, check_ssm_vjp
from minis5.verify.environment import check_env, check_episodes
from minis5.verify.learner_checks import check_optimizer, check_ppo_loss, check_training
from minis5.verify.replay import check_replay, check_rollout
from minis5.verify.report import Report

CHECKS = {  # name in `minis5 verify NAME module:function` → check
    "scan": check_scan,
    "scan_vjp": check_scan_vjp,
    "ssm": check_ssm,
    "ssm_vjp": check_ssm_vjp,
    "gae": check_gae,
    "ppo_loss": check_ppo_loss,
    "adam": check_optimizer,
    "replay": check_rollout,
    "training": check_training,
    "envs": check_episodes,
}

__all__ = [
    "CHECKS",
    "Report",
    "check_env",
    "check_episodes",
    "check_gae",
    "check_optimizer",
    "check_ppo_loss",
    "check_replay",
    "check_rollout",
    "check_scan",
    "check_scan_vjp",
    "check_ssm",
    "check_ssm_vjp",
    "check_training",
]
