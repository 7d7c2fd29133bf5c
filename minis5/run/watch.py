"""Watch an agent play: episodes step by step, as text or as pictures.

`frames` plays the episodes of an evaluation, the first one first, and yields a Frame for each
state. A game's frame is its own text and, in words, what the agent saw and did. A control task is
drawn (run/drawings.py). Any other environment shows itself, if Gymnasium's render mode "rgb_array"
or "ansi" is among its own.

Leaves out: people who play themselves, and sound. Tests: tests/run/test_watch.py.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from os import PathLike
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.vector import SyncVectorEnv

from minis5.envs.foreign import dmc
from minis5.envs.foreign.make import find_spec
from minis5.envs.foreign.named import import_environment
from minis5.envs.registry import find, make_vec
from minis5.envs.single import NativeEnv
from minis5.files import write_text
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import load_agent
from minis5.run.config import RunConfig
from minis5.run.console import answer
from minis5.run.drawings import check_suffix, draw, has_drawing, paint, pillow, write_pictures
from minis5.run.evaluate import FIRST_SEED, check_behind, check_seed, play
from minis5.run.kept import find_agent
from minis5.run.parser import add_trust, count, integer, real
from minis5.run.trust import check_trust
from minis5.run.words import in_words

MOST_PICTURES = 200  # of a GIF; of a longer one every second is left out, then every second again
SECONDS = 0.05  # between two pictures of a GIF


class Frame(NamedTuple):
    """A state that an episode comes to, and the step that led to it."""

    episode: int  # from 1
    step: int  # from 0, the state after the reset
    state: str  # as text; "" if the environment has none
    saw: str  # what the agent saw before this step, in words
    did: str  # its action
    reward: float
    total: float  # of the episode's rewards until now
    ended: bool
    image: np.ndarray | None  # (height, width, 3) uint8, if pictures were asked for

    def text(self) -> str:
        """Return the frame as lines of text."""
        if not self.step:
            return f"episode {self.episode}\n{self.state}".rstrip()
        head = f"step {self.step}: saw {self.saw}, chose {self.did}"
        lines = f"{head}, reward {self.reward:+.4g}, return {self.total:+.4g}\n{self.state}"
        return lines.rstrip()

    def summary(self) -> str:
        """Return what a whole episode earned; of its last frame."""
        return f"episode {self.episode}: return {self.total:.6g} after {self.step} steps"


class Watched(gymnasium.Wrapper):
    """Around a single environment: `seen` gets a Frame for every state.

    Parameters
    ----------
    env : gymnasium.Env
    episode : int
    pictures : bool
        Frames have images.
    seed : int
        Of the reset; None: the environment has been seeded.
    """

    def __init__(self, env, episode, pictures, seed=None):
        super().__init__(env)
        self.episode, self.pictures, self.seed, self.seen = episode, pictures, seed, []

    def reset(self, **options):
        given = options if self.seed is None else {"seed": self.seed}
        observation, info = self.env.reset(**given)
        self.seen.clear()  # of the reset that seeded it
        self.steps, self.total, self.last = 0, 0.0, observation
        self.add("", "", 0.0, False)
        return observation, info

    def step(self, action):
        before, outcome = self.last, self.env.step(action)
        self.last, reward, terminated, truncated, _ = outcome
        self.steps, self.total = self.steps + 1, self.total + float(reward)
        words = in_words(self.env, before, action)
        self.add(*words, float(reward), bool(terminated or truncated))
        return outcome

    def add(self, saw, did, reward, ended):
        text, image, native = "", None, self.env.unwrapped
        if isinstance(native, NativeEnv):
            state = native.task.params, *native.state()
            text = native.module.render(*state)
            image = paint(draw(native.module, *state)) if self.pictures else None
        elif self.env.render_mode is not None:
            try:
                shown = self.env.render()
            except gymnasium.error.DependencyNotInstalled as error:
                raise ModuleNotFoundError(
                    f"watch: expected what draws the environment, got none ({error}); install it, "
                    "or pass --out - for text"
                ) from error
            image = np.asarray(shown) if self.env.render_mode == "rgb_array" else None
            text = str(shown) if self.env.render_mode == "ansi" else ""
        self.seen.append(
            Frame(self.episode, self.steps, text, saw, did, reward, self.total, ended, image)
        )


def can_draw(config: RunConfig) -> bool:
    """Return whether there are pictures of a run's environment."""
    if native := find(config.env, config.env_options):
        return has_drawing(native[0])
    return "rgb_array" in _render_modes(config.env)


def _render_modes(env_id):
    """Return the render modes that a foreign environment has."""
    if env_id.startswith(dmc.NAMESPACE):
        dmc.register()
    spec = find_spec(import_environment(env_id))
    creator = None if spec is None else spec.entry_point
    creator = registration.load_env_creator(creator) if isinstance(creator, str) else creator
    return getattr(creator, "metadata", {}).get("render_modes", [])


def frames(
    agent: ActorCritic,
    config: RunConfig,
    episodes: int = 1,
    seed: int | None = None,
    deterministic: bool = True,
    pictures: bool = False,
) -> Iterator[Frame]:
    """Play episodes; yield a Frame for each state.

    They are the first ones of an evaluation with this seed, one environment for each.

    Parameters
    ----------
    agent : ActorCritic
    config : RunConfig
        Of the run that trained it; says which environment.
    episodes : int
    seed : int
        None: the run's, as in the evaluation at its end.
    deterministic : bool
        The likeliest action, or a sampled one.
    pictures : bool
        Frames have images; `can_draw` says whether that is possible.

    Raises
    ------
    ValueError
        The agent was trained behind wrappers around a batch, or the environment has no pictures.
    gymnasium.error.DependencyNotInstalled, ModuleNotFoundError
        What draws the pictures is not installed.
    """
    check_behind(agent, config.env)
    seed = config.seed if seed is None else seed
    check_seed(seed)
    if pictures and not can_draw(config):
        raise ValueError(
            f"out: expected a task that is drawn, got {config.env}, which is not; leave --out out "
            "for text"
        )
    native = find(config.env, config.env_options)
    for index in range(episodes):
        watched: list[Watched] = []

        def watch(env, begin=None, index=index, watched=watched):
            watched.append(Watched(env, index + 1, pictures, begin))
            return watched[-1]

        if native and not config.wrappers:
            one = watch(NativeEnv(native[0], native[1], stream=index), FIRST_SEED + seed)
            envs: gymnasium.vector.VectorEnv = SyncVectorEnv([lambda: one])  # noqa: B023
        else:
            modes = () if native else _render_modes(config.env)
            asked = "rgb_array" if pictures else "ansi"
            shown = {"render_mode": asked} if asked in modes else {}
            envs = make_vec(
                config.env,
                1,
                FIRST_SEED + seed,
                first_index=index,
                env_options={**config.env_options, **shown},
                wrappers=[*config.wrappers, watch],
            )
        with closing(envs):
            rng = np.random.default_rng([FIRST_SEED, seed, index])
            for _ in play(agent.to("cpu"), envs, np.ones(1, int), deterministic, rng, None):
                yield from watched[-1].seen
                watched[-1].seen.clear()


def show_text(played: Iterator[Frame], write: Any, delay: float, terminal: bool) -> None:
    """Write frames as text, one after another, and a line at the end of each episode.

    Parameters
    ----------
    played : iterator of Frame
    write : callable
        Takes a text.
    delay : float
        Seconds after each frame; in a terminal each frame then takes the place of the one before.
    terminal : bool
    """
    for frame in played:
        clear = "\x1b[H\x1b[J" if terminal and delay > 0 else ""
        write(clear + frame.text())
        if frame.ended:
            write(frame.summary())
        time.sleep(delay)


def save_pictures(played: Iterator[Frame], path: str | PathLike, delay: float) -> list[Frame]:
    """Write the pictures of frames into a file; return the last frame of each episode.

    There are at most MOST_PICTURES and the last ones.

    Those that are left out are dropped while the episode runs, so that memory stays bounded.
    """
    check_suffix(path)
    pillow()
    kept: list[Frame] = []
    stride, ends = 1, []
    for i, frame in enumerate(played):
        if i % stride == 0 or frame.ended:
            kept.append(frame)
        if len(kept) > MOST_PICTURES:
            stride, kept = 2 * stride, [f for j, f in enumerate(kept) if j % 2 == 0 or f.ended]
        ends += [frame._replace(image=None)] if frame.ended else []
    labels = [f"step {frame.step}  return {frame.total:.4g}" for frame in kept]
    write_pictures(path, [f.image for f in kept if f.image is not None], labels, delay or SECONDS)
    return ends


def watch_arguments(parser, argv):
    """Add the options of watch to a Parser."""
    del argv
    add = parser.add_argument
    add("run", metavar="RUN", help="a folder of minis5 train, or an agent that is kept (.npz)")
    add("--episodes", type=count, default=1, metavar="N", help="default 1")
    add("--seed", type=integer, metavar="N", help="default: the run's, as in its evaluation")
    add("--stochastic", action="store_true", help="sampled actions instead of the likeliest")
    add(
        "--out",
        metavar="FILE",
        help="pictures: .gif or .png (a strip); text: .txt, or - for the terminal (default: - for "
        "games, watch.gif for what can be drawn)",
    )
    add(
        "--delay",
        type=real,
        default=0.0,
        metavar="S",
        help="seconds after each frame; text in a terminal then stays in one place",
    )
    add_trust(parser)


def watch_run(options):
    """Show the episodes that the options ask for."""
    config, file = find_agent(options.run)
    check_trust(options.run, config.foreign_code(), False, options.trust)
    if not 0 <= options.delay < 3600:
        raise ValueError(f"delay: expected seconds from 0 on, got {options.delay}; pass 0.1")
    out = options.out or ("watch.gif" if can_draw(config) else "-")
    pictures = out != "-" and not out.endswith(".txt")
    settings = config, options.episodes, options.seed, not options.stochastic, pictures
    played = frames(load_agent(file, argument="run"), *settings)
    if pictures:
        for last in save_pictures(played, out, options.delay):
            answer(last.summary())
        answer(out)
    elif out == "-":
        terminal = sys.stdout is not None and sys.stdout.isatty()
        show_text(played, answer, options.delay, terminal)
    else:
        lines = []
        show_text(played, lines.append, 0.0, False)
        write_text(out, "\n".join([*lines, ""]))
        answer(out)
