"""One field as a file from elsewhere gives it, and how layers become one flat vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.models.network import RADIANCE_OUTPUTS, NetworkSpec, radiance_spec, relu_spec

Floats = NDArray[np.float32]
Layer = tuple[Floats, Floats | None]  # matrix [out, in], and bias [out]
LARGEST = 1 << 28  # numbers of one field
CODED = (
    "of ReLU units `octaves` = K tells 6 K inputs, of each axis in turn sin and cos of "
    "pi 2^k (x + 1) / 2 for k below K, and no other coding is read"
)


@dataclass(frozen=True)
class Views:
    """Cameras of a field of radiance, in unit space: poses [V, 3, 4], focal [V], size [V, 2]."""

    poses: Floats
    focal: Floats
    size: NDArray[np.int64]
    held: NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """A field and what came with it, in unit space.

    theta: [P], in the order of `spec`. cloud: [M, 3], points on its surface; mesh: vertices
    [V, 3] and faces [F, 3]. scale: user = unit * scale. official: whether the file shows that the
    field started from the authors' init of radiance.
    """

    theta: Floats
    spec: NetworkSpec
    class_name: str = ""
    split: str = ""
    cloud: NDArray[np.float64] | None = None
    mesh: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
    grid: NDArray[np.bool_] | None = None
    views: Views | None = None
    transform: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    official: bool = False
    kind: str = ""  # of field, where the file says it


def field_of_layers(layers: Sequence[Layer], net: ImportConfig) -> tuple[Floats, NetworkSpec]:
    """Make theta [P] and its architecture of a network's layers, first to last.

    What a store has no word for is folded into the weights, exactly up to rounding: the box into
    the first matrix (a coding of coordinates spans the box, and nothing is to be folded), a first
    omega of its own into the first layer, biases outside of omega into biases inside, scale and
    offset into the last layer. Biases that shapes lack are zeros.

    Raises:
        InputError: this is no network that a store can hold; it says why.
    """
    spec = spec_of(layers, net)
    parts = []
    last = len(layers) - 1
    for at, (weight, bias) in enumerate(layers):
        matrix = np.asarray(weight, np.float32)
        offset = np.zeros(len(matrix), np.float32) if bias is None else np.asarray(bias, np.float32)
        if not spec.radiance:
            box = net.box if at == 0 and not spec.octaves else 1.0
            matrix, offset = _folded(matrix, offset, net, box, first=at == 0, last=at == last)
        parts += [matrix.reshape(-1), *([offset] if spec.biases else [])]
    return np.ascontiguousarray(np.concatenate(parts), np.float32), spec


def _folded(
    matrix: Floats, bias: Floats, net: ImportConfig, box: float, *, first: bool, last: bool
) -> tuple[Floats, Floats]:
    if last:
        bias = net.scale * bias + net.offset if (net.scale, net.offset) != (1, 0) else bias
        return (matrix if net.scale == 1 else net.scale * matrix), bias
    if net.bias_outside:
        bias = bias / (net.first_omega if first and net.first_omega else net.omega)
    if box != 1:
        matrix = matrix * box
    if first and net.first_omega and net.first_omega != net.omega:
        factor = net.first_omega / net.omega
        return matrix * factor, bias * factor
    return matrix, bias


def spec_of(layers: Sequence[Layer], net: ImportConfig) -> NetworkSpec:
    """Name the architecture of layers.

    Raises:
        InputError: matrices do not follow on each other, or it is none that a store can hold.
    """
    shapes = [np.shape(weight) for weight, _ in layers]
    told = "-".join(str(n) for n in (shapes[0][1], *(s[0] for s in shapes))) if shapes else "none"
    widths = {shape[0] for shape in shapes[:-1]} | {shape[1] for shape in shapes[1:]}
    if len(shapes) < 3 or len(widths) != 1:
        raise InputError(
            f"its layers are {told}: a store holds networks of two hidden layers or more, "
            "all of one width"
        )
    (hidden,) = widths
    inputs, outputs, count = shapes[0][1], shapes[-1][0], len(shapes) - 1
    for name, wanted, got in (("hidden", net.hidden, hidden), ("layers", net.layers, count)):
        if wanted and wanted != got:
            raise InputError(f"its layers are {told}: {name} is {got}, and {wanted} is told")
    for at, (weight, bias) in enumerate(layers):
        if bias is not None and np.shape(bias) != (len(weight),):
            raise InputError(f"layer {at} has {len(weight)} units and a bias {np.shape(bias)}")
    biases = all(bias is not None for _, bias in layers)
    relu = net.activation == "relu"
    if relu and outputs == RADIANCE_OUTPUTS:
        return _radiance(told, inputs, hidden, count, net, biases=biases)
    wanted = 6 * net.octaves if relu and net.octaves else 3
    if (inputs, outputs) != (wanted, 1):
        raise InputError(
            f"its layers are {told}: a field of shapes has {wanted} inputs and 1 output"
            + (f"; {CODED}" if relu and outputs == 1 else "")
        )
    if relu:
        return relu_spec(hidden=hidden, layers=count, octaves=net.octaves)
    return NetworkSpec(hidden=hidden, layers=count, omega=net.omega)


def _radiance(
    told: str,
    inputs: int,
    hidden: int,
    layers: int,
    net: ImportConfig,
    *,
    biases: bool,
) -> NetworkSpec:
    octaves = net.octaves or inputs // 6
    if inputs != 6 * octaves:
        raise InputError(
            f"its layers are {told}: a field of radiance has 6 numbers an octave as inputs"
        )
    return radiance_spec(
        hidden=hidden, layers=layers, octaves=octaves, biases=biases, density=net.box
    )


def transform_of(told: object) -> tuple[float, float, float, float]:
    """Read a transform: centre x, y, z and scale.

    Raises:
        InputError: it is none.
    """
    try:
        numbers = np.asarray(told, np.float64).reshape(4)
    except (TypeError, ValueError) as error:
        raise InputError(f"its transform {told!r} is no centre and scale") from error
    if not np.isfinite(numbers).all() or numbers[3] <= 0:
        raise InputError(f"its transform {numbers.tolist()} is no centre and scale")
    x, y, z, scale = numbers.tolist()
    return x, y, z, scale


def check_cells(shape: tuple[int, ...]) -> None:
    """See that a grid of occupancy has a shape that a store can hold.

    Raises:
        InputError: it has not.
    """
    if len(shape) != 3 or len(set(shape)) != 1 or not 16 <= shape[0] <= 128 or shape[0] % 2:
        raise InputError(f"its grid has {shape} cells: a cube of 16 to 128 is read")


def checked(theta: Floats) -> Floats:
    """Give weights back if all are finite.

    Raises:
        InputError: some are not.
    """
    wrong = int((~np.isfinite(theta)).sum())
    if wrong:
        raise InputError(f"{wrong:,} of its {theta.size:,} weights are NaN or infinite")
    return theta
