"""README.txt of the test vectors: all that a program in another language needs, without this code.

What each operation does is its own text (``about`` in operations/). Leaves out: writing files
(vectors.py). Tests: tests/verify/test_readme.py.
"""

from minis5.verify.case import FORWARD, GRADIENT
from minis5.verify.flags import FLAGS

README = """\
Test vectors of minis5, format version {version}, seed {seed}{small}.

Each folder is an operation: what a function gets, and what it must return. A line of its cases.tsv
is a case; the columns are separated by tabs, an empty cell means "not given":

    id        the case's name, and the name of its folder
    flags     what the case asks of a function, separated by commas (below)
    dtype     the precision under test, float32 or float64: inputs are rounded to it already
    inputs    NAME:KIND of each input, separated by spaces; an input that is not listed is not given
    outputs   NAME:KIND:TOLERANCE of each output
    steps     T in the tolerance
    others    the call's: words as they are, the rest in JSON (0.99, 1e-05, true, ["w", "b"])

A column that has the name of an argument is that argument: gamma, clip_value. Sizes (T, B, P, ...)
are those of the arrays. A column that an operation's text does not name says how the case was made.
Read columns by name: others may be added. schema.json has nothing that a program needs: the texts
below, and digests by which minis5 knows that cases.tsv is as it was written.

CASE/NAME.npy is an array, all of them in C order (the last index runs fastest) and little-endian:

    real      float64 '<f8'
    complex   float64 '<f8' with one more axis, the last, of 2: real part, imaginary part
    bool      uint8 '|u1', 0 or 1
    integer   int64 '<i8'

A .npy file is: 8 bytes "\\x93NUMPY\\x01\\x00", the length of the header in 2 bytes (little-endian),
the header in that many bytes, then the numbers. The header is text such as
{{'descr': '<f8', 'fortran_order': False, 'shape': (33, 2, 3, 2), }}; the files here have no other
form, so a reader needs the numbers in the brackets only. One axis is (3,), a single number ().
Shapes in the texts below are without the last axis of complex numbers.

What to do: for each case read the inputs, convert real and complex numbers to dtype, call your
function, and write each output as GOT/OPERATION/CASE/NAME.npy, with the shape and in the form of
DIR/OPERATION/CASE/NAME.npy, the expected one. The header needs no padding. These forms will do
too: '<f4' for real and complex; '<c8' and '<c16' without the last axis for complex; '|b1' for bool;
any little-endian integers for integer; 'fortran_order': True. Outputs of cases in float64 must be
computed in float64. Then run (with pip install minis5, Python)

    minis5 verify DIR GOT [OPERATION...]

which tells what is wrong, and why it probably is. Its exit code is 0 if all is right, 1 if a case
is not, 2 if it could not compare. A case without files counts as not implemented.

Without minis5: integers and flags must be equal. Other numbers are right if they are NaN, Inf and
-Inf where the expected ones are (complex ones: not finite, in either part, where the expected ones
are not), and if elsewhere, in all of the array,
max |got - expected| <= TOLERANCE max(m, s), where m is max |expected| over its finite numbers, or 1
if they are all 0 (or none), s the smallest normal number of dtype, and |z| the size of a complex z.
Compute this in float64.

NaN and Inf in inputs and expected outputs are meant: see the flags reset_selects and extreme.

Flags:

{flags}

Operations:

{operations}

Tolerances are c eps T: c = {forward} for outputs, {gradient} for gradients, eps that of dtype,
2^-23 or 2^-52, T the column steps. Cases with the flag long or subnormal only inform.
`minis5 verify --report FILE` writes JSON: "passed", "counts" by status, "fails_in" (the flags that
explain the failures), "flags" (counts by flag), and "results", a list with for each case id,
operation, case, flags, dtype, status (passed, failed, missing, xfail, xpass, informational),
message, output, index, expected, got (the first wrong number), cause (the probable one), accuracy
(max |error| / max |expected|) and minis5_accuracy.
"""
SMALL_SET = ", the small set (without --small there is more)"


def readme(version: int, seed: int, small: bool, abouts: dict[str, str]) -> str:
    """Return the text for test vectors of these operations, {name: about}."""
    return README.format(
        version=version,
        seed=seed,
        small=SMALL_SET if small else "",
        flags="\n".join(f"    {flag:14} {about}" for flag, about in FLAGS.items()),
        operations="\n\n".join(f"{name}\n    {about.rstrip()}" for name, about in abouts.items()),
        forward=FORWARD,
        gradient=GRADIENT,
    )
