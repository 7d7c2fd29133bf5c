"""Watching an agent: the episodes are those of its evaluation; words, drawings, files, mistakes."""

import math
import sys

import gymnasium
import numpy as np
import pytest
from command_line import error_of
from small_runs import FOREIGN, TINY, UPDATE

import minis5
from minis5.envs.control import reacher
from minis5.envs.registry import CONTROL_SUITE, POPGYM, REGISTRY, find
from minis5.envs.single import NativeEnv
from minis5.files import write_json
from minis5.run import drawings
from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.evaluate import evaluate
from minis5.run.kept import keep_agent
from minis5.run.train import train
from minis5.run.watch import can_draw, frames, show_text
from minis5.run.words import WORDS, in_words, numbers


def trained(folder, env, **options):
    settings = {"overrides": TINY, "eval_episodes": 1, "quiet": True, "workers": 1}
    train(env, steps=UPDATE, out=folder, **{**settings, **options})
    return minis5.load(folder / "agent.npz"), read_config(folder)


class Shown(gymnasium.Env):
    """Draws itself: step k is an image of the grey k, or its text."""

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=5, render_mode=None):
        self.length, self.render_mode = length, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.start = float(self.np_random.uniform())
        return np.array([self.start, 0], np.float32), {}

    def step(self, action):
        self.count += 1
        ended = self.count == self.length
        return np.zeros(2, np.float32), self.start, ended, False, {}

    def render(self):
        if self.render_mode == "ansi":
            return f"count {self.count} of {self.length}"
        return np.full((20, 30, 3), self.count % 256, np.uint8)


gymnasium.register("Shown-v0", entry_point=Shown)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown") / "run"
    return folder, *trained(folder, "Shown-v0", overrides={**TINY, "num_envs": 2})


def totals(played):
    return [frame.total for frame in played if frame.ended]


@pytest.mark.parametrize("env", ["RepeatPreviousEasy", "PositionOnlyPendulumEasy"])
def test_the_episodes_are_those_of_the_evaluation(tmp_path, env):
    agent, config = trained(tmp_path / "run", env)
    for deterministic in (True, False):
        found = list(frames(agent, config, 3, 5, deterministic))
        wanted = evaluate(agent, env, 3, 5, True)["mean_return"]
        if deterministic:  # in float32 a batch of one rounds otherwise than a batch of three
            assert np.mean(totals(found)) == pytest.approx(wanted, rel=1e-6)
        assert len(set(totals(found))) > 1
        second = [frame.step for frame in found if frame.episode == 2]
        assert second == list(range(len(second)))
    again = list(frames(agent, config, 3, 5, False))
    assert [f.text() for f in again] == [f.text() for f in found]


def test_foreign_episodes_are_those_of_the_evaluation(shown):
    _, agent, config = shown
    found = totals(frames(agent, config, 3))
    assert np.mean(found) == pytest.approx(evaluate(agent, "Shown-v0", 3)["mean_return"], rel=1e-12)
    assert len(set(found)) == 3


def test_a_game_is_told_in_its_own_words(tmp_path, capsys):
    trained(tmp_path / "run", "RepeatPreviousEasy")
    assert main(["watch", str(tmp_path / "run"), "--seed", "3"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "episode 1" and lines[1].startswith("card 1/52: ")
    cards = [line.split()[2] for line in lines if line.startswith("card ")]
    steps = [line for line in lines if line.startswith("step ")]
    assert len(cards) == 52 and set(cards) <= set("♠♦♣♥")
    for k, line in enumerate(steps):  # what it saw is the card shown before
        assert line.startswith(f"step {k + 1}: saw {cards[k]}, chose ")
    total = sum(float(line.split("reward ")[1].split(",")[0]) for line in steps)
    assert lines[-1].startswith("episode 1: return ") and lines[-1].endswith("after 51 steps")
    assert float(lines[-1].split()[3]) == pytest.approx(total, abs=1e-3)


def test_every_game_has_words():
    levels = {env: name for name, (env, _) in REGISTRY.items()}
    games = {*POPGYM} - {REGISTRY["PositionOnlyPendulumEasy"][0]}
    assert games <= set(WORDS)
    for env in WORDS:
        one = NativeEnv(*find(levels[env]))
        observation, _ = one.reset(seed=1)
        one.action_space.seed(0)
        for _ in range(30):
            action = one.action_space.sample()
            saw, did = in_words(one, observation, action)
            assert saw and did and "\n" not in saw + did
            observation, _, terminated, truncated, _ = one.step(action)
            if terminated or truncated:
                break


@pytest.mark.parametrize(
    "level, observation, action, words",
    [
        ("RepeatPreviousEasy", 0, 3, ("♠", "♥")),
        ("AutoencodeEasy", (1, 2), 1, ("♣", "♦")),
        ("AutoencodeEasy", (0, 0), 1, ("♠ (play)", "♦")),
        ("CountRecallMedium", [1, 3], 4, ("♦, asked for ♥", "4")),
        ("HigherLowerEasy", 12, 0, ("K", "higher")),
        ("ConcentrationEasy", [2] * 50 + [0, 1], 7, ("2 cards up", "card 8")),
        ("MultiarmedBanditEasy", 1, 2, ("a payout", "arm 3")),
        ("BattleshipEasy", 0, [0, 7], ("no hit", "row 1, column 8")),
        ("MineSweeperEasy", 2, [3, 1], ("2 mines near", "row 4, column 2")),
        ("LabyrinthEscapeEasy", [1, 0, 1, 1, 2, 1, 1, 3, 1, 4], 2, ("[# #|#S#|#E#]", "up")),
        ("MemoryChain-8", [0.5, 1, -1], 1, ("cue [-1], query 1", "1")),
        ("PositionOnlyCartPoleEasy", [0.25, -2], 1, ("(0.25 -2)", "right")),
        ("PointMassEasy", [0.25, -2, 0, 0], [0.5, 1], ("(0.25 -2 0 0)", "(0.5 1)")),
    ],
)
def test_words_by_hand(level, observation, action, words):
    one = NativeEnv(*find(level))
    value = observation if isinstance(observation, tuple) else np.asarray(observation)
    assert in_words(one, value, action) == words
    assert numbers(range(20)) == "(0 1 2 3 4 5 6 7 … 20 numbers)"


def picture_of(level, steps=30, options=None):
    """Return a picture of a state, its floats, its observation."""
    one = NativeEnv(*find(level, options))
    observation, _ = one.reset(seed=2)
    one.action_space.seed(0)
    for _ in range(steps):
        observation, *_ = one.step(one.action_space.sample())
    return drawings.draw(one.module, one.task.params, *one.state()), one.state()[1], observation


def test_drawings_show_what_the_agent_observes():
    """Ends of lines against the observation, which the tests of each task hold to its source."""
    picture, _, seen = picture_of("AcrobotSwingUp")
    points = picture.shapes[1].points
    upper, lower = np.diff(points, axis=0)
    np.testing.assert_allclose([upper[0], lower[0], upper[1], lower[1]], seen[:4], atol=1e-6)
    picture, _, seen = picture_of("ReacherEasy")
    target, arm, finger = picture.shapes
    assert (finger.x, finger.y) == arm.points[-1] and target.radius == 0.05
    np.testing.assert_allclose([target.x - finger.x, target.y - finger.y], seen[2:4], atol=1e-6)
    assert math.hypot(*arm.points[1]) == pytest.approx(reacher.ARM)
    picture, _, seen = picture_of("CartPoleSwingUp")
    start, tip = picture.shapes[2].points
    assert start[0] == pytest.approx(seen[0]) and tip[1] == pytest.approx(seen[1], abs=1e-6)
    assert tip[0] - start[0] == pytest.approx(seen[2], abs=1e-6)
    picture, _, seen = picture_of("PositionOnlyCartPoleEasy", 3)
    start, tip = picture.shapes[2].points
    assert start[0] == pytest.approx(seen[0], rel=1e-5)
    assert tip[0] - start[0] == pytest.approx(math.sin(seen[1]), rel=1e-5)
    picture, _, seen = picture_of("PendulumSwingUp")
    tip = picture.shapes[-1]
    np.testing.assert_allclose([tip.y / 0.5, tip.x / 0.5], seen[:2], atol=1e-6)
    picture, _, seen = picture_of("PositionOnlyPendulumEasy")
    tip = picture.shapes[-1]
    np.testing.assert_allclose([tip.y, -tip.x], seen, atol=1e-6)
    picture, _, seen = picture_of("PointMassHard")
    np.testing.assert_allclose([picture.shapes[-1].x, picture.shapes[-1].y], seen[:2], rtol=1e-6)


def test_the_finger_and_its_spinner():
    picture, floats, seen = picture_of("FingerTurnEasy")
    target, spinner, tip, _, arm = picture.shapes
    np.testing.assert_allclose([tip.x, tip.y], seen[2:4], atol=1e-6)
    np.testing.assert_allclose([target.x, target.y], seen[9:11], atol=1e-6)
    gap = math.hypot(tip.x - target.x, tip.y - target.y) - target.radius
    assert gap == pytest.approx(seen[11], abs=1e-6)
    upper, lower = np.diff(arm.points, axis=0)
    assert math.atan2(upper[1], upper[0]) == pytest.approx(seen[0], abs=1e-6)
    turn = math.atan2(lower[1], lower[0]) - seen[0] - seen[1]
    assert math.cos(turn) == pytest.approx(1, abs=1e-9)
    assert len(picture_of("FingerSpin")[0].shapes) == 4  # no target


def test_every_control_task_has_a_drawing():
    drawn = {*CONTROL_SUITE, REGISTRY["PositionOnlyPendulumEasy"][0]}
    assert drawn | {REGISTRY["PositionOnlyCartPoleEasy"][0]} == set(drawings.DRAWINGS)


def test_the_ball_hangs_from_the_cup_by_its_string():
    picture, floats, _ = picture_of("BallInCupCatch", 400)
    string, ball = picture.shapes[-2:]
    (top, end) = string.points
    assert end == (ball.x, ball.y) and math.dist(top, end) == pytest.approx(0.3, abs=0.02)
    assert top[0] == floats[0]


def test_a_mixture_is_drawn_as_what_it_plays():
    options = {"tasks": "PointMassEasy,ReacherEasy,AcrobotSwingUp"}
    around = options | {"project_observation": 4, "project_action": 3}
    drawn = {}
    for seed in range(12):
        one = NativeEnv(*find("Mixture", around))
        one.reset(seed=seed)
        text = one.module.render(one.task.params, *one.state())
        picture = drawings.draw(one.module, one.task.params, *one.state())
        drawn.setdefault(text.split("task ")[1][0], set()).add(picture.view)
    assert len(drawn) == 3 and all(len(views) == 1 for views in drawn.values())
    assert len(set.union(*drawn.values())) == 3
    assert drawings.has_drawing(find("Mixture", around)[0])
    assert not drawings.has_drawing(find("RepeatPreviousEasy")[0])


def test_a_control_task_is_drawn_into_a_gif_or_a_strip(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    trained(tmp_path / "run", "PositionOnlyPendulumHard")
    keep_agent(tmp_path / "run", tmp_path / "kept.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minis5.run.watch.MOST_PICTURES", 30)
    assert main(["watch", "kept", "--delay", "0.2"]) == 0
    assert capsys.readouterr().out.endswith("after 100 steps\nwatch.gif\n")
    with image.open("watch.gif") as gif:
        assert 15 <= gif.n_frames <= 31 and gif.size == (300, 316)
        assert gif.info["duration"] == 200
    assert main(["watch", "kept", "--out", "strip.png"]) == 0
    with image.open("strip.png") as strip:
        assert strip.size == (302 * drawings.MOST_IN_STRIP, 316)
        pixels = np.asarray(strip.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    capsys.readouterr()
    assert main(["watch", "kept", "--out", "text.txt"]) == 0
    assert (tmp_path / "text.txt").read_text(encoding="utf-8").count("rad from upright") == 101
    capsys.readouterr()
    assert "expected a name that ends in .gif or .png" in error_of(capsys, "watch kept --out a.jpg")


def test_an_environment_that_draws_itself(tmp_path, shown, capsys):
    image = pytest.importorskip("PIL.Image")
    folder, agent, config = shown
    assert can_draw(config)
    found = list(frames(agent, config, pictures=True))
    assert [int(frame.image[0, 0, 0]) for frame in found] == [0, 1, 2, 3, 4, 5]
    assert main(["watch", str(folder), "--out", str(tmp_path / "a.gif"), "--episodes", "2"]) == 0
    assert capsys.readouterr().out.count("after 5 steps\n") == 2
    with image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12 and gif.size == (30, 36)
    assert main(["watch", str(folder), "--out", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["episode 1", "count 0 of 5"] and lines[3] == "count 1 of 5"


def test_text_stays_in_one_place_in_a_terminal_only(shown, monkeypatch):
    _, agent, config = shown
    waited = []
    monkeypatch.setattr("minis5.run.watch.time.sleep", waited.append)
    for delay, terminal, clears in ((0.5, True, 6), (0.5, False, 0), (0.0, True, 0)):
        lines = []
        show_text(frames(agent, config), lines.append, delay, terminal)
        assert sum(line.startswith("\x1b[H\x1b[J") for line in lines) == clears
        assert waited == [delay] * 6
        waited.clear()


def cannot_render(env):
    raise gymnasium.error.DependencyNotInstalled("pip install pygame")


def test_mistakes(tmp_path, finished, shown, monkeypatch, capsys):
    folder, agent, config = shown
    assert "no run of minis5 train there" in error_of(capsys, f"watch {tmp_path}")
    assert "delay: expected seconds from 0 on" in error_of(capsys, f"watch {finished} --delay -1")
    command = f"watch {finished} --out {tmp_path / 'a.gif'}"
    assert "expected a task that is drawn, got MemoryChain" in error_of(capsys, command)
    value = config.to_json() | {"env": "os.path:Shown-v0"}
    write_json(tmp_path / "config.json", value)
    assert "config.json imports 'os.path'" in error_of(capsys, f"watch {tmp_path}")
    command = f"watch {folder} --out {tmp_path / 'a.gif'}"
    monkeypatch.setattr(Shown, "render", cannot_render)
    assert main(command.split()) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "got none (pip install pygame); install it, or pass --out - for text" in error
    monkeypatch.setitem(sys.modules, "PIL", None)
    command = f"watch {folder} --out {tmp_path / 'a.png'}"
    assert "pictures need Pillow, which is not installed; pip install" in error_of(capsys, command)
    agent.behind = ("NormalizeObservation",)
    with pytest.raises(ValueError, match="env_id: expected a vector environment behind"):
        next(frames(agent, config))
    agent.behind = ()


def test_wrapped_environments_are_watched(tmp_path):
    options = {**FOREIGN, "overrides": {**TINY, "num_envs": 2}, "eval_episodes": 2}
    limit = [("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 7})]
    agent, config = trained(tmp_path / "run", "RepeatPreviousEasy", wrappers=limit, **options)
    found = list(frames(agent, config, 2))
    assert [f.step for f in found if f.ended] == [7, 7] and "card 8/52" in found[7].state
    wanted = evaluate(agent, "RepeatPreviousEasy", 2, wrappers=limit)["mean_return"]
    assert np.mean(totals(found)) == pytest.approx(wanted)
