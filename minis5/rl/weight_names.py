"""Names and shapes of weights elsewhere: the authors' Flax tree, and s5-pytorch.

    minis5                         popjaxrl (Flax)                s5-pytorch (a state dict)
    images/0/1/kernel, bias        images_0_conv_1/kernel, bias   images.0.1.weight (F, C, k, k)
    encoder/0/kernel, bias         encoder_0/kernel, bias         encoder.0.weight (out, in), bias
    core/layers/0/ssm/             s5/layers_0/seq/               layers.0.seq.
      Lambda_re, Lambda_im           Lambda_re, Lambda_im           Lambda (P,) complex
      B (P, H, 2)                    B (P, H, 2)                    B (P, H, 2)
      C (H, P, 2)                    C (H, P, 2)                    C (H, P) complex
      D (H,)                         D (H,)                         D (H,)
      log_step (P, 1)                log_step (P, 1)                log_step (P,)
    core/layers/0/out1, out2       s5/layers_0/out1, out2         layers.0.out1, layers.0.out2
    core/layers/0/norm,            s5/layers_0/norm, one          layers.0.norm, gtrxl_norm,
      gtrxl_norm, postnorm           for all                        postnorm: weight, bias
    actor/0/, actor/out/           action_body_0, action_decoder  actor.0, actor.out
    critic/0/, critic/out/         value_body_0, value_decoder    critic.0, critic.out
    log_std                        log_std                        log_std

Flax names are joined by "/" (or "."), with or without "params/" in front. s5-pytorch has only the
module S5, whose names are "seq.…"; the other names of that column are those of torch modules
around it (Linear; LayerNorm with eps=1e-6; GELU with approximate="tanh"; Conv2d, whose last output
is flattened in the order rows, columns, channels). One layer's S5 module goes in or out by
``layer``.

s5-pytorch keeps both states of each conjugate pair: going out, a layer with ``conj_sym`` becomes
[Λ, Λ*], which computes the same; coming in, such pairs are folded if the agent has ``conj_sym``.

Leaves out: bidirectional, liquid and factorized layers, states of optimisers, other cores.
Source: https://github.com/luchris429/popjaxrl (algorithms/s5.py, ppo_s5.py), s5-pytorch 0.2.1.
Tests: tests/rl/test_weights.py; against s5-pytorch itself experiments/verify.py.
"""

import re

import numpy as np

from minis5.checks import check_integer
from minis5.nn.layer_doors import layer_shapes

NORMS = {"prenorm": "norm", "gtrxl_norm": "gtrxl_norm", "postnorm": "postnorm"}  # setting: name
PARTS = ("out1", "out2", "norm", "gtrxl_norm", "postnorm")  # of an S5 layer, beside its SSM
FLAX = {  # a name's beginning here: and there; # is a number
    "images/#/#/": "images_#_conv_#/",
    "encoder/#/": "encoder_#/",
    "core/layers/#/ssm/": "s5/layers_#/seq/",
    **{f"core/layers/#/{part}/": f"s5/layers_#/{part}/" for part in PARTS[:3]},
    "actor/out/": "action_decoder/",
    "actor/#/": "action_body_#/",
    "critic/out/": "value_decoder/",
    "critic/#/": "value_body_#/",
    "log_std": "log_std",
}
TORCH = {
    "images/#/#/": "images.#.#.",
    "encoder/#/": "encoder.#.",
    "core/layers/#/ssm/": "layers.#.seq.",
    **{f"core/layers/#/{part}/": f"layers.#.{part}." for part in PARTS},
    "actor/out/": "actor.out.",
    "actor/#/": "actor.#.",
    "critic/out/": "critic.out.",
    "critic/#/": "critic.#.",
    "log_std": "log_std",
}
FORMATS = {"flax": FLAX, "s5-pytorch": TORCH}
KINDS = {  # a name that minis5 has no place for: what it belongs to
    r"C[12]": "a bidirectional layer",
    r"[BC][HP]": "a factorized layer",
    r"ff_\w+|attn_norm": "s5-pytorch's S5Block; prefix 's5.' and a layer take its S5 alone",
    r"opt_state|step|mu|nu|count": "a training state; prefix 'params/' takes its parameters alone",
}
# fields of AgentConfig and S5Config that a file of weights does not hold
SETTINGS: tuple[str, ...] = ("activation", "observation_scale", "scale_actions", "conv")
SETTINGS += ("discretization", "conj_sym", "clip_eigs", "step_rescale", "gate", *NORMS, "resets")


def translate(name, table):
    """Return a name with its beginning replaced as the table says; None if it has none of these."""
    for begin, other in table.items():
        if match := re.match(re.escape(begin).replace(r"\#", r"(\d+)"), name):
            for number in match.groups():
                other = other.replace("#", number, 1)
            return other + name[match.end() :]
    return None


# One layer in s5-pytorch's form


def layer_to_torch(layer, conj_sym):
    """Return an SSM's arrays as s5-pytorch names and shapes them, with both states of a pair."""
    found = {
        "Lambda": layer["Lambda_re"] + 1j * layer["Lambda_im"],
        "B": layer["B"],
        "C": layer["C"][..., 0] + 1j * layer["C"][..., 1],
        "D": layer["D"],
        "log_step": layer["log_step"][:, 0],
    }
    if conj_sym:  # 2·Re(C̃x) = Re(C̃x + C̃*x*)
        found["Lambda"] = np.concatenate([found["Lambda"], found["Lambda"].conj()])
        found["B"] = np.concatenate([layer["B"], layer["B"] * layer["B"].dtype.type([1, -1])])
        found["C"] = np.concatenate([found["C"], found["C"].conj()], axis=1)
        found["log_step"] = np.concatenate([found["log_step"]] * 2)
    return found


def layer_from_torch(found):
    """Return an SSM's arrays as minis5 has them, from s5-pytorch's; complex ones may be pairs."""
    layer = {name: array for name, array in found.items() if name not in ("Lambda", "C")}
    if "Lambda" in found:
        layer["Lambda_re"], layer["Lambda_im"] = np.moveaxis(_pairs("Lambda", found), -1, 0)
    if "C" in found:
        layer["C"] = _pairs("C", found)
    if "log_step" in found:
        layer["log_step"] = found["log_step"].reshape(-1, 1)
    return layer


def _pairs(name, found):
    """Return an array with real and imaginary parts on its last axis."""
    array = found[name]
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1)
    if array.shape[-1:] != (2,):
        remedy = "take torch.view_as_real"
        got = f"{array.dtype} {array.shape}"
        raise ValueError(f"{name}: expected complex numbers or (…, 2), got {got}; {remedy}")
    return array


def fold(layer, where=""):
    """Return one state of each conjugate pair of a layer [Λ, Λ*], whose names begin ``where``.

    Raises
    ------
    ValueError
        An array has another shape than the others ask for, or the second half of the states is not,
        bit for bit, conjugate to the first.
    """
    P = layer["Lambda_re"].size // 2
    for name, shape in layer_shapes(2 * P, layer["D"].size).items():
        if layer[name].shape != shape:
            got, remedy = layer[name].shape, "here, as in minis5, C has a last axis of 2"
            raise ValueError(f"{where}{name}: expected {shape}, got {got}; {remedy}")
    one = {"D": layer["D"], "C": layer["C"][:, :P]}
    one |= {name: layer[name][:P] for name in ("Lambda_re", "Lambda_im", "B", "log_step")}
    both = layer_from_torch(layer_to_torch(one, True))
    if not all(np.array_equal(both[name], layer[name]) for name in both):
        wanted = f"{where}Lambda, B, C, log_step in conjugate pairs [Λ, Λ*]"
        raise ValueError(f"conj_sym: expected {wanted}, got others; take conj_sym=false")
    return one


# Agents


def check_layer(agent, layer):
    """Return the number of an agent's layer; raise if there is none of that number."""
    check_s5(agent)
    last = agent.config.core_config.n_layers - 1
    return check_integer("layer", layer, 0, last, "the first layer is 0")


def check_s5(agent):
    """Raise ValueError if an agent has something that no file of weights here can hold."""
    if agent.config.core != "s5":
        raise ValueError(f"core: expected 's5', got {agent.config.core!r}; the others stay here")
    if agent.normalizer is not None:
        remedy = "its moments have no place there; train without"
        raise ValueError(f"normalize_observations: expected False, got True; {remedy}")


def their_name(name, to):
    """Return what the file calls one of our arrays, for messages."""
    shared = re.sub(r"/(gtrxl_norm|postnorm)/", "/norm/", name) if to == "flax" else name
    theirs = translate(shared, FORMATS[to]) or name
    if to == "flax":
        return theirs
    theirs = re.sub(r"\.Lambda_(re|im)$", ".Lambda", theirs)
    return re.sub(r"\.(kernel|scale)$", ".weight", theirs)
