"""Images within observations: rows of bytes for the rollout, convolutions for the network.

An image is a Box of uint8 with bounds 0 and 255 and three axes. If the first axis is the shortest,
it has the channels: 4 x 84 x 84, frames stacked. Otherwise the last one has: 210 x 160 x 3. Bytes
become numbers in [0, 1]. `conv` (of AgentConfig) says by which layers an image is seen:

    auto                    by the shorter side: IMPALA's small ones from 36 pixels on, from 128
                            with a larger first stride, and smaller ones below (SMALLEST)
    nature, impala, …       a name in LAYERS
    32-8-4,64-4-2,64-3-1    any others: filters, window, stride of each layer
    none                    no layers: its values are flattened like those of any other Box

An agent's input with images is a row of bytes: the pixels, then the bytes of the floats of all the
rest. A rollout so takes a quarter of the memory of one with floats.

Leaves out: padding, residual layers, pooling; images of two or four axes.
Source: LAYERS has [Nature] Mnih et al. 2015, methods; [IMPALA] 1802.01561, figure 3, left.
Specification: reference.image_features. Tests: tests/rl/test_images.py.
"""

import math
import re
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from minis5.arrays import array_module, concatenate, move
from minis5.nn.conv import ConvCache, conv_backward, conv_forward, conv_init, conv_size
from minis5.rl.spaces_json import PIXELS

BYTE = 255
LAYERS = {  # name: (filters, window, stride) of each layer
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "large": ((16, 8, 8), (32, 4, 2)),
    "impala": ((16, 8, 4), (32, 4, 2)),
    "small": ((16, 4, 2), (32, 3, 2)),
    "tiny": ((16, 3, 1), (32, 3, 1)),
}
# auto: the least pixels of the shorter side
SMALLEST = {"large": 128, "impala": 36, "small": 12, "tiny": 5}
LAYER = r"[1-9]\d{0,4}-[1-9]\d{0,4}-[1-9]\d{0,4}"
FORM = f"auto, none, {', '.join(LAYERS)}, or filters-window-stride of each layer"


def named_layers(text):
    """Return the layers that ``text`` names: (filters, window, stride) of each; () for none.

    Raises
    ------
    ValueError
        It names none, nor is it "auto", which depends on the images: see :func:`layers_for`.
    """
    if text in ("auto", "none"):
        return ()
    if text in LAYERS:
        return LAYERS[text]
    if not re.fullmatch(f"{LAYER}(,{LAYER})*", text):
        remedy = "32-8-4,64-4-2 are two layers"
        raise ValueError(f"conv: expected {FORM}, got {text!r}; {remedy}")
    return tuple(tuple(int(n) for n in layer.split("-")) for layer in text.split(","))


def layers_for(shape, text):
    """Return the layers through which an agent with ``conv`` = text sees images (H, W, C).

    Raises
    ------
    ValueError
        A layer's window is larger than what it sees.
    """
    H, W, _ = shape
    if text == "auto":
        fits = (LAYERS[name] for name, least in SMALLEST.items() if min(H, W) >= least)
        return next(fits, ())
    layers = named_layers(text)
    for i, (_, window, stride) in enumerate(layers):
        if window > min(H, W):
            wanted = f"a window of at most {min(H, W)} in layer {i}, which sees {H} x {W}"
            raise ValueError(f"conv: expected {wanted}, got {window}; take less, or auto")
        H, W = conv_size(H, window, stride), conv_size(W, window, stride)
    return layers


def channels_first(shape):
    """Return whether the first of an image's three axes has its channels: it is the shortest."""
    return shape[0] < min(shape[1:])


def pixels(shape):
    """Return an image's shape as rows, columns, channels."""
    return (*shape[1:], shape[0]) if channels_first(shape) else shape


def sees(config):
    """Return a function that says whether an agent so configured sees a space through layers."""

    def is_image(space):
        if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
            return False
        all_bytes = (space.low == 0).all() and (space.high == BYTE).all()
        return bool(all_bytes and space.low.size and layers_for(pixels(space.shape), config.conv))

    return is_image


class Image(NamedTuple):
    """An image within the observations, and how it is seen."""

    shape: tuple  # (H, W, C)
    first: bool  # the environment has the channels first
    layers: tuple
    features: tuple  # shape of the last layer's output


class Seen(NamedTuple):
    """What :meth:`Images.backward` needs of an image."""

    layers: list[ConvCache]
    features: tuple  # shape of the last layer's output, with the number of images in front


class Images:
    """The images of an agent's observations; there may be none.

    Parameters
    ----------
    shapes : list of tuple
        Of the images that convolutions see, as the space has them.
    config : AgentConfig
    vector_size : int
        Floats of all the rest of the agent's input.

    Attributes
    ----------
    row_size, dtype : int, dtype
        Of a row of the agent's input, as :meth:`pack` makes it.
    width : int
        Numbers in what :meth:`forward` makes of a row.

    Raises
    ------
    ValueError
        Layers are given, and there is no image.
    """

    def __init__(self, shapes, config, vector_size):
        self.activation, self.floats, self.images = config.activation, np.dtype(config.dtype), []
        for shape in shapes:
            H, W, C = pixels(shape)
            if H * W * C > PIXELS:
                got = f"{H} x {W} x {C}; scale it down, or take conv='none'"
                raise ValueError(f"image: expected at most {PIXELS:,} numbers, got {got}")
            layers = layers_for((H, W, C), config.conv)
            image = Image((H, W, C), channels_first(shape), layers, ())
            for filters, window, stride in layers:
                H, W, C = conv_size(H, window, stride), conv_size(W, window, stride), filters
            self.images.append(image._replace(features=(H, W, C)))
        if not shapes and named_layers(config.conv):
            wanted = "auto or none, because no observation is a uint8 Box of three axes, 0 to 255"
            raise ValueError(f"conv: expected {wanted}, got {config.conv!r}; leave it out")
        self.width = vector_size + sum(math.prod(image.features) for image in self.images)
        self.row_size, self.dtype = vector_size, self.floats
        if shapes:
            floats = vector_size * self.floats.itemsize
            self.row_size = floats + sum(math.prod(image.shape) for image in self.images)
            self.dtype = np.dtype(np.uint8)

    def kernels(self):
        """Return the shapes of the kernels: [n][i] is of layer i for image n."""
        found = []
        for image in self.images:
            channels = (image.shape[2], *(filters for filters, _, _ in image.layers))
            sizes = zip(channels, image.layers, strict=False)
            found.append([(k, k, C, filters) for C, (filters, k, _) in sizes])
        return found

    def init(self, rng):
        """Return the initial parameters: "0/1/kernel" is of the first image's second layer."""
        return {
            str(n): {str(i): conv_init(rng, shape, np.sqrt(2)) for i, shape in enumerate(shapes)}
            for n, shapes in enumerate(self.kernels())
        }

    def pack(self, arrays, x):
        """Return rows of the agent's input, x (..., vector_size) itself if there are no images.

        arrays: a uint8 array for each image, with the axes of x in front.
        """
        if not self.images:
            return x
        xp, lead = array_module(x), x.shape[:-1]
        parts = []
        for array, image in zip(arrays, self.images, strict=True):
            array = move(array, "cpu" if xp is np else "cuda")
            array = xp.moveaxis(array, -3, -1) if image.first else array
            parts.append(array.reshape(*lead, math.prod(image.shape)))
        return concatenate([*parts, x.view(np.uint8)])

    def forward(self, p, rows):
        """Return [features of each image | vector] (..., width) of rows, and the cache."""
        if not self.images:
            return rows, None
        xp, flat = array_module(rows), rows.reshape(-1, self.row_size)
        parts, cache, begin = [], [], 0
        for n, image in enumerate(self.images):
            end, caches, scale = begin + math.prod(image.shape), [], 1 / BYTE
            y = flat[:, begin:end].reshape(-1, *image.shape)
            for i, (_, _, stride) in enumerate(image.layers):
                y, layer = conv_forward(p[str(n)][str(i)], y, stride, self.activation, scale)
                caches.append(layer)
                scale = 1.0
            parts.append(y.reshape(len(flat), -1))
            cache.append(Seen(caches, y.shape))
            begin = end
        parts.append(xp.ascontiguousarray(flat[:, begin:]).view(self.floats))
        return concatenate(parts).reshape(*rows.shape[:-1], self.width), cache

    def backward(self, dx, cache):
        """Return the gradients of the parameters, nested, from the gradient of the result."""
        grads, begin = {}, 0
        for n, (caches, shape) in enumerate(cache or ()):
            end, layers = begin + math.prod(shape[1:]), {}
            dy = dx.reshape(-1, self.width)[:, begin:end].reshape(shape)
            for i in reversed(range(len(caches))):  # nothing needs the gradient of the pixels
                dy, layers[str(i)] = conv_backward(dy, caches[i], need_dx=i > 0)
            grads[str(n)], begin = layers, end
        return grads
