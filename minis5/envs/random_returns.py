"""Mean return of the uniform random policy on every native level, as measured.

experiments/popgym_random.py measured it, by `measure`.

Tests: tests/envs/test_random_returns.py, a smaller measurement, and formulas for some games.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete

EPISODES = 40_000  # of each level
RANDOM_RETURNS = {  # level: (mean, its standard error)
    "MemoryChain": (0.00290, 0.00500),
    "RepeatPreviousEasy": (-0.50031, 0.00063),
    "RepeatPreviousMedium": (-0.49949, 0.00051),
    "RepeatPreviousHard": (-0.49983, 0.00045),
    "PositionOnlyCartPoleEasy": (0.11142, 0.00030),
    "PositionOnlyCartPoleMedium": (0.05571, 0.00015),
    "PositionOnlyCartPoleHard": (0.03714, 0.00010),
    "VelocityOnlyCartPoleEasy": (0.11142, 0.00030),
    "VelocityOnlyCartPoleMedium": (0.05571, 0.00015),
    "VelocityOnlyCartPoleHard": (0.03714, 0.00010),
    "NoisyPositionOnlyCartPoleEasy": (0.11142, 0.00030),
    "NoisyPositionOnlyCartPoleMedium": (0.11142, 0.00030),
    "NoisyPositionOnlyCartPoleHard": (0.11142, 0.00030),
    "PositionOnlyPendulumEasy": (0.24610, 0.00088),
    "PositionOnlyPendulumMedium": (0.24463, 0.00091),
    "PositionOnlyPendulumHard": (0.24341, 0.00094),
    "NoisyPositionOnlyPendulumEasy": (0.24610, 0.00088),
    "NoisyPositionOnlyPendulumMedium": (0.24610, 0.00088),
    "NoisyPositionOnlyPendulumHard": (0.24610, 0.00088),
    "AutoencodeEasy": (-0.49940, 0.00060),
    "AutoencodeMedium": (-0.50042, 0.00042),
    "AutoencodeHard": (-0.50028, 0.00035),
    "CountRecallEasy": (-0.92612, 0.00026),
    "CountRecallMedium": (-0.92593, 0.00019),
    "CountRecallHard": (-0.88245, 0.00016),
    "HigherLowerEasy": (-0.00116, 0.00067),
    "HigherLowerMedium": (0.00015, 0.00047),
    "HigherLowerHard": (-0.00009, 0.00038),
    "RepeatFirstEasy": (-0.49988, 0.00060),
    "RepeatFirstMedium": (-0.49955, 0.00021),
    "RepeatFirstHard": (-0.50001, 0.00015),
    "ConcentrationEasy": (-0.19174, 0.00052),
    "ConcentrationMedium": (-0.18498, 0.00036),
    "ConcentrationHard": (-0.83390, 0.00044),
    "MultiarmedBanditEasy": (0.00100, 0.00098),
    "MultiarmedBanditMedium": (0.00090, 0.00069),
    "MultiarmedBanditHard": (0.00023, 0.00057),
    "MineSweeperEasy": (-0.22861, 0.00164),
    "MineSweeperMedium": (-0.40152, 0.00064),
    "MineSweeperHard": (-0.43147, 0.00042),
    "BattleshipEasy": (-0.44885, 0.00082),
    "BattleshipMedium": (-0.41562, 0.00077),
    "BattleshipHard": (-0.39881, 0.00075),
    "LabyrinthEscapeEasy": (-0.41934, 0.00372),
    "LabyrinthEscapeMedium": (-0.83361, 0.00230),
    "LabyrinthEscapeHard": (-0.95503, 0.00121),
    "LabyrinthExploreEasy": (-0.35452, 0.00094),
    "LabyrinthExploreMedium": (-0.61240, 0.00065),
    "LabyrinthExploreHard": (-0.74122, 0.00046),
    "CartPoleBalance": (356.52938, 0.29190),
    "CartPoleSwingUp": (26.92421, 0.10152),
    "PendulumSwingUp": (0.79283, 0.02251),
    "AcrobotSwingUp": (2.97988, 0.04571),
    "PointMassEasy": (5.43032, 0.23448),
    "PointMassHard": (5.44141, 0.23787),
    "ReacherEasy": (55.20625, 0.52544),
    "ReacherHard": (9.66372, 0.13356),
    "BallInCupCatch": (91.42220, 1.35746),
    "FingerSpin": (0.52018, 0.00732),
    "FingerTurnEasy": (170.14095, 1.54694),
    "FingerTurnHard": (71.28460, 0.93705),
}


def measure(envs, seed=0):
    """Return the returns of the uniform random policy, one episode in each of the environments.

    Parameters
    ----------
    envs : NativeVectorEnv
        Not begun yet.
    seed : int
        Of the actions.

    Returns
    -------
    float64 (num_envs,)
    """
    n = envs.num_envs
    envs.reset()
    rng = np.random.default_rng(seed)
    returns, playing = np.zeros(n), np.ones(n, bool)
    while playing.any():
        actions = _uniform(envs.single_action_space, n, rng)
        _, reward, terminated, truncated, _ = envs.step(actions)
        returns[playing] += reward[playing]
        playing &= ~(terminated | truncated)
    return returns


def _uniform(space, n, rng):
    if isinstance(space, Box):
        return rng.uniform(space.low, space.high, (n, *space.shape)).astype(space.dtype)
    return rng.integers(
        0, space.n if isinstance(space, Discrete) else space.nvec, (n, *space.shape)
    )
