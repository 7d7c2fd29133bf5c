"""What foreign environments show: texts are left out, MiniGrid's cells are categories."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import minis5
from minis5.envs.foreign.observed import adapt, left_out

BOX, TEXT = spaces.Box(-1, 1, (2,), np.float32), spaces.Text(12)
SEED = 3


class Shows(gymnasium.Env):
    """Shows samples of a space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(SEED)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def test_what_has_no_text_stays_the_same():
    for space in (BOX, spaces.Dict(a=BOX), spaces.Tuple((BOX, spaces.Dict(a=BOX)))):
        env = Shows(space)
        assert adapt(env) is env


def test_texts_are_left_out_at_any_depth():
    inner = spaces.Dict(a=BOX, words=TEXT)
    space = spaces.Dict(
        deep=spaces.Tuple((TEXT, inner, spaces.Discrete(3))),
        only=spaces.Dict(words=TEXT),
        pair=spaces.Tuple((BOX, BOX)),
        x=BOX,
    )
    env = adapt(Shows(space))
    kept = spaces.Dict({1: spaces.Dict(a=BOX), 2: spaces.Discrete(3)})
    assert env.observation_space == spaces.Dict(deep=kept, pair=spaces.Tuple((BOX, BOX)), x=BOX)
    assert env.left_out == (
        "observation['deep'][0]",
        "observation['deep'][1]['words']",
        "observation['only']['words']",
    )
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    space.seed(SEED)
    whole = space.sample()
    np.testing.assert_array_equal(observation["deep"][1]["a"], whole["deep"][1]["a"])
    assert observation["deep"][2] == whole["deep"][2]
    assert env.observation_space.contains(env.step(0)[0])


@pytest.mark.parametrize("space", [TEXT, spaces.Dict(a=TEXT, b=spaces.Tuple((TEXT,)))], ids=str)
def test_nothing_but_texts_is_refused(space):
    with pytest.raises(ValueError, match="^observation_space: expected something to see"):
        adapt(Shows(space))


@pytest.fixture
def texts():
    gymnasium.register("Texts-v0", lambda: Shows(spaces.Dict(a=BOX, words=TEXT)))
    yield "Texts-v0"
    del gymnasium.registry["Texts-v0"]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_batches_leave_texts_out(texts, mode):
    envs = minis5.make_vec(texts, 3, vectorization_mode=mode)
    assert envs.single_observation_space == spaces.Dict(a=BOX)
    observations, *_ = envs.step(envs.action_space.sample())
    assert set(observations) == {"a"} and observations["a"].shape == (3, 2)
    assert left_out(envs) == (("observation['words']",) if mode == "sync" else ())
    envs.close()


def test_an_agent_learns_beside_a_text(texts, capsys, tmp_path):
    """The run says once what is left out."""
    from minis5.run.train import train

    options = {"num_envs": "2", "unroll": "4", "minibatches": "1"}
    train(texts, steps=8, overrides=options, eval_steps=4, eval_episodes=1, out=tmp_path / "run")
    assert capsys.readouterr().err.count("left out, because they are texts: observation['wo") == 1


# MiniGrid


def minigrid(name="MiniGrid-MemoryS7-v0", num_envs=2, **more):
    pytest.importorskip("minigrid")
    return minis5.make_vec(f"minigrid:{name}", num_envs, seed=1, **more)


def test_cells_are_categories():
    envs = minigrid()
    space = envs.single_observation_space
    assert set(space) == {"direction", "image"} and left_out(envs) == ("observation['mission']",)
    np.testing.assert_array_equal(space["image"].nvec, np.tile([11, 6, 4], (7, 7, 1)))
    agent = minis5.ActorCritic(space, envs.single_action_space)
    assert agent.observation_encoder.size == 4 + 7 * 7 * (11 + 6 + 4)
    observations, _ = envs.reset()
    for _ in range(40):
        vectors = agent.observation_encoder.observation_vector(observations)
        # each cell has one object, one colour, one state
        np.testing.assert_array_equal(vectors.sum(axis=1), 1 + 3 * 7 * 7)
        observations, *_ = envs.step(envs.action_space.sample())
    vector = agent.observation_encoder.observation_vector(observations)[0, 4:].reshape(7, 7, 21)
    image = observations["image"]
    assert image.dtype == np.uint8
    for x, y in np.ndindex(7, 7):
        thing, colour, state = image[0, x, y]
        ones = np.flatnonzero(vector[x, y]).tolist()
        assert ones == [thing, 11 + colour, 17 + state]
    envs.close()


def test_other_views_are_categories_too():
    wrapper = "minigrid.wrappers:FullyObsWrapper"
    envs = minigrid("MiniGrid-Empty-5x5-v0", wrappers=[wrapper])
    nvec = envs.single_observation_space["image"].nvec
    np.testing.assert_array_equal(nvec, np.tile([11, 6, 4], (5, 5, 1)))
    observations, _ = envs.reset()
    for _ in range(30):  # the agent's direction is a state
        assert envs.observation_space["image"].contains(observations["image"])
        observations, *_ = envs.step(envs.action_space.sample())
    envs.close()


def test_pixels_stay_pixels_and_an_image_alone_stays_numbers():
    drawn = minigrid(wrappers=["minigrid.wrappers:RGBImgPartialObsWrapper"])
    image = drawn.single_observation_space["image"]
    assert image == spaces.Box(0, 255, (56, 56, 3), np.uint8)
    agent = minis5.ActorCritic(drawn.single_observation_space, drawn.single_action_space)
    assert agent.images.images[0].shape == (56, 56, 3)
    alone = minigrid(wrappers=["minigrid.wrappers:ImgObsWrapper"])
    assert alone.single_observation_space == spaces.Box(0, 255, (7, 7, 3), np.uint8)
    drawn.close(), alone.close()


def test_environments_can_be_pickled():
    """A run keeps them in state.npz."""
    envs = minigrid()
    again = pickle.loads(pickle.dumps(envs.envs[0]))
    one, two = (env.step(2)[0]["image"] for env in (envs.envs[0], again))
    np.testing.assert_array_equal(one, two)
    envs.close()


def test_others_with_a_dict_and_an_image_are_left_alone():
    image = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    env = adapt(Shows(spaces.Dict(image=image, mission=TEXT)))
    assert env.observation_space == spaces.Dict(image=image)
