"""Parameters that learn at another rate: those that set how long an S5 state remembers.

S5's authors train Λ and Δ with a smaller learning rate than the rest. Adam divides by the
gradient's size, so a scaled gradient would change nothing: the step is scaled (adam.py).

Leaves out: rates of single layers. Source: 2208.04933, appendix on training; the authors' code.
Tests: tests/rl/test_rates.py.
"""

from minis5.arrays import Array
from minis5.nn.s5 import SPECTRUM
from minis5.rl.agent import ActorCritic


def rates(agent: ActorCritic, ssm_lr_factor: float) -> Array | None:
    """Return the factor of the learning rate for each parameter of an agent.

    Returns
    -------
    (n,) array in the order of ``agent.parameter_vector``, or None
        None: every factor is 1, because ``ssm_lr_factor`` is, or because the core is not S5.
    """
    factors = agent.xp.ones_like(agent.parameter_vector)
    slow = [
        view for name, view in agent.views(factors).items() if name.rpartition("/")[2] in SPECTRUM
    ]
    if ssm_lr_factor == 1 or not slow:
        return None
    for view in slow:
        view[...] = ssm_lr_factor
    return factors
