"""Compositions of environments by name, for the tests that every environment must pass."""

from minis5.envs.registry import find, make_single, make_vec

COMPOSED = {  # name: (id, options)
    "meta cartpole": (
        "NoisyPositionOnlyCartPoleEasy",
        # some trials fall, some are cut off
        {"max_steps": 20, "trials": 3, "project_observation": 5, "permute_actions": True},
    ),
    "meta pendulum": (
        "PositionOnlyPendulumEasy",
        {
            "max_steps": 15,
            "trials": 2,
            "project_observation": 4,
            "project_action": 3,
            "action_repeat": 2,
        },
    ),
    "meta autoencode": ("AutoencodeEasy", {"trials": 2, "project_action": 3}),
    "meta battleship": ("BattleshipEasy", {"trials": 1}),
    "meta mixture": (
        "Mixture",
        {
            "tasks": "PositionOnlyPendulumEasy,"
            "NoisyPositionOnlyPendulumHard,PositionOnlyPendulumHard",
            "trials": 2,
            "project_observation": 3,
            "project_action": 2,
            "projections": 5,
        },
    ),
}


def id_and_options(name):
    return COMPOSED.get(name, (name, {}))


def vec(name, num_envs, *arguments, **named):
    """Call make_vec for a composition or an id."""
    env_id, options = id_and_options(name)
    return make_vec(env_id, num_envs, *arguments, **named, **options)


def single(name):
    """Call make_single for a composition or an id."""
    env_id, options = id_and_options(name)
    return make_single(env_id, **options)


def environment_and_task(name):
    """Call `find` for a composition or an id."""
    return find(*id_and_options(name))
