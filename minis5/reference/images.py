"""The specification, continued: convolutions of images, one number at a time, in float64.

Images are (H, W, C), kernels (k, l, C, F). It imports nothing of minis5 outside this folder.
Source: [CONV] LeCun et al. 1989; sizes of whole encoders in minis5/rl/images.py.
Tests: tests/nn/test_conv.py compares with numbers worked by hand.
"""

import numpy as np

from minis5.reference.s5_ppo import activate


def conv(p, image, stride, activation="linear"):
    """Return act(convolution + bias) of one image (H, W, C), (rows, columns, F).

    z[i, j, f] = bias[f] + Σ over a, b, c of image[i·stride + a, j·stride + b, c]·kernel[a, b, c, f]
    for all windows within the image.
    """
    (H, W, C), (k, l, _, F) = image.shape, p["kernel"].shape  # noqa: E741
    z = np.zeros(((H - k) // stride + 1, (W - l) // stride + 1, F))
    for i, j, f in np.ndindex(z.shape):
        z[i, j, f] = p["bias"][f]
        for a, b, c in np.ndindex(k, l, C):
            z[i, j, f] += float(image[i * stride + a, j * stride + b, c]) * p["kernel"][a, b, c, f]
    return activate(z, activation)


def image_features(p, image, strides, activation):
    """Return the features of one image of bytes (H, W, C): its layers' output as a vector.

    p: {"0": layer, "1": layer, …}; strides: one for each layer. Bytes become numbers in [0, 1].
    """
    y = image / 255.0
    for i, stride in enumerate(strides):
        y = conv(p[str(i)], y, stride, activation)
    return y.reshape(-1)
