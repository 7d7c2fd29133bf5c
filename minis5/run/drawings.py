"""Pictures of the control tasks, drawn from their states, and files of many pictures.

Each task has a function from its parameters and its floats to a Picture: lines and discs in metres.
`paint` makes an image of it, `write_pictures` a GIF that moves or a PNG strip. Pillow does both; it
comes with matplotlib, in the extra `train`.

Leaves out: games, which are text (run/watch.py), and environments that draw themselves.
Tests: tests/run/test_watch.py.
"""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minis5.envs.control import (
    acrobot,
    ball_in_cup,
    contact,
    finger,
    fingertip,
    point_mass,
    reacher,
)
from minis5.envs.control import cartpole as suite_cartpole
from minis5.envs.control import pendulum as suite_pendulum
from minis5.envs.meta import MetaParams
from minis5.envs.mixture import Either, MixtureParams
from minis5.envs.popgym import cartpole as popgym_cartpole
from minis5.envs.popgym import pendulum as popgym_pendulum

SIZE = 300  # pixels of a picture's longer side
FINE = 2  # drawn so many times larger, then made smaller: without it lines have steps
INK, MAIN, SECOND, TARGET, FAINT = "#222222", "#0072b2", "#d55e00", "#009e73", "#bbbbbb"
MOST_IN_STRIP = 10


class Line(NamedTuple):
    """Points that are joined, in metres; width in metres too."""

    points: tuple
    colour: str = INK
    width: float = 0.0


class Disc(NamedTuple):
    """A filled circle, in metres."""

    x: float
    y: float
    radius: float
    colour: str


class Picture(NamedTuple):
    """What is seen: (left, bottom, right, top) in metres, and what is in it, first at the back."""

    view: tuple
    shapes: tuple


def cart(x, theta, length, limit, down):
    """Return a cart on a rail with a pole, whose angle is 0 when it is upright."""
    top = 1.15 * length
    tip = x + length * math.sin(theta), length * math.cos(theta)
    side = max(limit + 0.3, 1.2 * length)
    return Picture(
        (-side, -top if down else -0.4, side, top),
        (
            Line(((-limit, 0), (limit, 0)), FAINT, 0.03),
            Line(((x - 0.2, 0), (x + 0.2, 0)), INK, 0.16),
            Line(((x, 0), tip), SECOND, 0.07),
        ),
    )


def draw_popgym_cartpole(params, floats):
    x, theta = floats[popgym_cartpole.X], floats[popgym_cartpole.THETA]
    length = 2 * popgym_cartpole.HALF_LENGTH
    return cart(x, theta, length, popgym_cartpole.X_LIMIT, False)


def draw_suite_cartpole(params, floats):
    x, theta = floats[suite_cartpole.X], floats[suite_cartpole.THETA]
    return cart(x, theta, 2 * suite_cartpole.HALF_LENGTH, suite_cartpole.X_LIMIT, True)


def rods(*parts):
    """Return points at the joints of rods, each (length, angle from upright towards x)."""
    points = [(0.0, 0.0)]
    for length, angle in parts:
        x, y = points[-1]
        points.append((x + length * math.sin(angle), y + length * math.cos(angle)))
    return tuple(points)


def swinging(points, reach, *behind):
    """Return rods that hang from a hinge in the middle of the picture."""
    view = (-1.2 * reach, -1.2 * reach, 1.2 * reach, 1.2 * reach)
    joints = (Disc(x, y, 0.05 * reach, INK) for x, y in points[:-1])
    tip = Disc(*points[-1], 0.08 * reach, SECOND)
    return Picture(view, (*behind, Line(points, MAIN, 0.06 * reach), *joints, tip))


def draw_popgym_pendulum(params, floats):
    # Gymnasium's picture turns to the left as the angle grows.
    return swinging(rods((1.0, -floats[popgym_pendulum.THETA])), 1.0)


def draw_suite_pendulum(params, floats):
    length = suite_pendulum.LENGTH
    return swinging(rods((length, floats[suite_pendulum.THETA])), length)


def draw_acrobot(params, floats):
    upper = floats[acrobot.SHOULDER]
    points = rods((acrobot.LENGTH, upper), (acrobot.LENGTH, upper + floats[acrobot.ELBOW]))
    target = Disc(0, acrobot.TARGET_HEIGHT, acrobot.TARGET_RADIUS, FAINT)
    return swinging(points, acrobot.TARGET_HEIGHT, target)


def draw_reacher(params, floats):
    shoulder, both = floats[reacher.SHOULDER], floats[reacher.SHOULDER] + floats[reacher.WRIST]
    x, y = reacher.ARM * math.cos(shoulder), reacher.ARM * math.sin(shoulder)
    finger = x + reacher.HAND * math.cos(both), y + reacher.HAND * math.sin(both)
    target = floats[reacher.TARGET_X], floats[reacher.TARGET_Y]
    arm = Line(((0.0, 0.0), (x, y), finger), MAIN, 0.02)
    shapes = Disc(*target, params.target_radius, TARGET), arm
    return Picture((-0.3, -0.3, 0.3, 0.3), (*shapes, Disc(*finger, reacher.FINGER_RADIUS, SECOND)))


def draw_point_mass(params, floats):
    x, y, wall = floats[point_mass.X], floats[point_mass.Y], point_mass.WALL
    corners = ((-wall, -wall), (wall, -wall), (wall, wall), (-wall, wall), (-wall, -wall))
    target = Disc(0, 0, point_mass.TARGET_RADIUS, TARGET)
    side = 1.15 * wall
    shapes = Line(corners, FAINT, 0.005), target, Disc(x, y, 0.012, SECOND)
    return Picture((-side, -side, side, side), shapes)


def draw_ball_in_cup(params, floats):
    cup, ball = ball_in_cup.CUP, ball_in_cup.BALL
    x, z = floats[cup], floats[cup + 1] + ball_in_cup.CUP_HEIGHT
    there = floats[ball], floats[ball + 1] + ball_in_cup.BALL_HEIGHT
    bars = [
        Line(((x + x0, z + z0), (x + x0 + dx, z + z0 + dz)), MAIN, 2 * contact.BAR_RADIUS)
        for x0, z0, dx, dz in contact.SEGMENTS
    ]
    shapes = Line(((-0.6, 0.0), (0.6, 0.0)), FAINT, 0.01), *bars
    string = Line(((x, z - contact.STRING_DEPTH), there), INK)
    ball = Disc(*there, contact.BALL_RADIUS, SECOND)
    return Picture((-0.6, -0.05, 0.6, 1.15), (*shapes, string, ball))


def draw_finger(params, floats):
    x, z, dx, dz = fingertip.links(floats[finger.FIRST], floats[finger.SECOND])
    length = fingertip.TIP_BEGIN + fingertip.TIP_LENGTH
    points = (-fingertip.HINGE, 0.0), (x, z), (x + length * dx, z + length * dz)
    tip = tuple(map(float, finger.tip(floats)))
    end = fingertip.CAP_HALF / finger.TIP * tip[0], fingertip.CAP_HALF / finger.TIP * tip[1]
    target = Disc(floats[finger.TARGET_X], floats[finger.TARGET_Z], params.target_radius, TARGET)
    spinner = Line(((-end[0], -end[1]), end), FAINT, 0.12), Disc(*tip, 0.01, SECOND)
    shapes = (*spinner, Disc(0.0, 0.0, 0.01, INK), Line(points, MAIN, 0.06))
    return Picture((-0.6, -0.36, 0.3, 0.36), (target, *shapes) if params.target_radius else shapes)


DRAWINGS = {
    finger: draw_finger,
    popgym_cartpole: draw_popgym_cartpole,
    popgym_pendulum: draw_popgym_pendulum,
    suite_cartpole: draw_suite_cartpole,
    suite_pendulum: draw_suite_pendulum,
    acrobot: draw_acrobot,
    reacher: draw_reacher,
    point_mass: draw_point_mass,
    ball_in_cup: draw_ball_in_cup,
}


def innermost(env, params, ints, floats):
    """Return environment, parameters and floats of what a composition plays at present."""
    while True:
        if isinstance(params, MetaParams):
            ints, floats = ints[: params.ints], floats[: params.floats]
            env, params = env.parts[0], params.env
        elif isinstance(params, MixtureParams):
            env, params = env.parts[0], params.drawn
        elif isinstance(params, Either):
            second = int(ints[params.task] >= params.middle)
            env, params = env.parts[second], (params.first, params.second)[second]
        else:
            return env, params, floats


def has_drawing(env: Any) -> bool:
    """Return whether all that a native environment can play has a drawing."""
    parts = getattr(env, "parts", None)
    return all(map(has_drawing, parts)) if parts else env in DRAWINGS


def draw(env: Any, params: tuple, ints: np.ndarray, floats: np.ndarray) -> Picture:
    """Return the picture of a native environment's state (minis5/envs/task.py describes it)."""
    env, params, floats = innermost(env, params, ints, floats)
    return DRAWINGS[env](params, floats)


def pillow() -> Any:
    """Return Pillow's modules Image and ImageDraw.

    Raises
    ------
    ModuleNotFoundError
        It is not installed; the message says how to install it.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ModuleNotFoundError(
            "watch: pictures need Pillow, which is not installed; pip install 'minis5[train]'"
        ) from error
    return Image, ImageDraw


def paint(picture: Picture) -> np.ndarray:
    """Return a picture as an image: (height, width, 3) uint8, the longer side of SIZE."""
    image_module, draw_module = pillow()
    left, bottom, right, top = picture.view
    scale = FINE * SIZE / max(right - left, top - bottom)
    size = round((right - left) * scale / FINE), round((top - bottom) * scale / FINE)
    image = image_module.new("RGB", (FINE * size[0], FINE * size[1]), "white")
    pen = draw_module.Draw(image)

    def place(x, y):
        return (x - left) * scale, (top - y) * scale

    for shape in picture.shapes:
        if isinstance(shape, Line):
            points = [place(*point) for point in shape.points]
            pen.line(points, shape.colour, max(FINE, round(shape.width * scale)), "curve")
        else:
            (x, y), radius = place(shape.x, shape.y), shape.radius * scale
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), shape.colour)
    return np.asarray(image.resize(size, image_module.Resampling.LANCZOS))


def check_suffix(path: str | PathLike) -> None:
    """Raise ValueError unless a file's name is one of pictures."""
    if Path(path).suffix not in (".gif", ".png"):
        raise ValueError(f"out: expected a name that ends in .gif or .png, got {path}; change it")


def write_pictures(
    path: str | PathLike, images: Sequence[np.ndarray], labels: Sequence[str], seconds: float
) -> None:
    """Write images, each with a line of text below it, as a GIF or a PNG strip.

    Parameters
    ----------
    path : path
        Its suffix is .gif, for all images in turn, or .png, for MOST_IN_STRIP side by side, spread
        evenly from the first to the last.
    images : sequence of (height, width, 3) uint8
    labels : sequence of str
    seconds : float
        Between two images of a GIF.

    Raises
    ------
    ValueError
        Another suffix.
    ModuleNotFoundError
        Pillow is not installed.
    OSError
        The file cannot be written.
    """
    image_module, _ = pillow()
    check_suffix(path)
    if Path(path).suffix == ".gif":
        first, *rest = [_labelled(*pair) for pair in zip(images, labels, strict=True)]
        milliseconds = max(20, round(1000 * seconds))  # browsers show shorter ones slowly
        first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)
        return
    count = min(len(images), MOST_IN_STRIP)
    chosen = [round(i * (len(images) - 1) / max(count - 1, 1)) for i in range(count)]
    parts = [_labelled(images[i], labels[i]) for i in chosen]
    wide, high = max(part.width for part in parts) + 2, max(part.height for part in parts)
    strip = image_module.new("RGB", (wide * count, high), FAINT)
    for i, part in enumerate(parts):
        strip.paste(part, (i * wide, 0))
    strip.save(path)


def _labelled(image, label):
    """Return an image of Pillow's with a line of text below it."""
    image_module, draw_module = pillow()
    height, width = image.shape[:2]
    whole = image_module.new("RGB", (width, height + 16), "white")
    whole.paste(image_module.fromarray(image), (0, 0))
    draw_module.Draw(whole).text((4, height + 2), label, INK)
    return whole
