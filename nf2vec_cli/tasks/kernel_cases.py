"""The work that `bench kernels` times: each kernel at sizes of the paper, beside its twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.core.composite import composite
from nf2vec_cli.core.decode import decode, decode_twin
from nf2vec_cli.core.gradient import siren_gradient
from nf2vec_cli.core.march import DIAGONAL, Rays, march, march_twin
from nf2vec_cli.core.mlp import (
    field_gradient_twin,
    field_values,
    field_values_twin,
    tiled_values,
)
from nf2vec_cli.core.neighbours import SPARE, best_rows, best_rows_twin
from nf2vec_cli.core.rows_pool import rows_pool, rows_pool_twin
from nf2vec_cli.models.network import (
    NetworkSpec,
    radiance_init,
    radiance_spec,
    siren_init,
)

NUMBER = 4  # bytes


@dataclass(frozen=True)
class Case:
    """One kernel at one size: two ways to do the same, which give the same numbers.

    flops: of the sum that is asked for, multiplication and addition counted apart, nothing for what
    a kernel computes twice. bytes: inputs read once, results written once.
    """

    kernel: str
    size: str
    flops: float
    bytes: float
    twin: Callable[[], Tensor]
    ours: Callable[[], Tensor]


def cases(device: torch.device, precision: str) -> Iterator[Case]:
    """Make each case when it is asked for: the inputs of one are gone before the next."""
    draw = torch.Generator(device=device).manual_seed(0)
    wide = NetworkSpec(hidden=512, layers=4, omega=30.0)
    small = NetworkSpec(hidden=128, layers=4, omega=30.0)
    # a CPU fits objects one by one; what fills a GPU, and is more than its caches hold
    many, points, rays, gallery = (64, 1 << 17, 100_000, 1 << 20)
    if device.type == "cpu":
        many, points, rays, gallery = (1, 1 << 14, 10_000, 100_000)
    yield from (mlp_step(spec, many, precision, draw) for spec in (small, wide))
    yield mlp_values(small, many, 1 << 16, precision, draw)
    nerf = radiance_spec(hidden=64, layers=3, octaves=4, biases=False)
    yield mlp_values(nerf, many, 1 << 16, precision, draw)
    yield pooled_rows(many, precision, draw)
    yield decoded(points, precision, draw)
    yield from rendered(rays, draw)
    yield neighbours(gallery, draw)


def mlp_step(spec: NetworkSpec, objects: int, precision: str, draw: torch.Generator) -> Case:
    """Values and gradient of one step of a fit, squared error."""
    points = 4_000 if spec.hidden > 128 else 1_250
    theta = _start(spec, objects, draw.device)
    coords = _uniform((objects, points, 3), draw)
    targets = _uniform((objects, points), draw)
    share = torch.full_like(targets, 1 / points)
    engine = siren_gradient(spec, theta=theta, tile=1_250, precision=precision)

    def loss(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        return (found - wanted).square(), 2 * (found - wanted)

    def ours() -> Tensor:
        engine(coords, targets, loss, share)
        return engine.grad

    def twin() -> Tensor:
        outputs = field_values_twin(theta, coords, spec)
        _, slopes = loss(outputs, targets[..., None])
        return field_gradient_twin(theta, coords, slopes * share[..., None], spec)

    first, macs = 3 * spec.hidden, sum(o * i for o, i in spec.shapes)
    flops = 2 * objects * points * (3 * macs - first)  # none to the coordinates
    size = f"{objects} x {points} points, sine {spec.hidden} x {spec.layers}, step"
    moved = 2 * theta.numel() + coords.numel() + targets.numel()
    return Case("mlp", size, flops, NUMBER * moved, twin, ours)


def mlp_values(
    spec: NetworkSpec, objects: int, points: int, precision: str, draw: torch.Generator
) -> Case:
    """Values alone, as `reconstruct` asks for them."""
    theta = _start(spec, objects, draw.device)
    coords = _uniform((objects, points, 3), draw)
    ours = partial(field_values, theta, coords, spec, precision)
    if not theta.is_cuda and not spec.radiance:
        # as `reconstruct` has it: one field, tiles that stay in the cache
        ours = partial(tiled_values, theta[0], coords[0], spec)
    flops = 2 * objects * points * sum(o * i for o, i in spec.shapes)
    moved = theta.numel() + coords.numel() + objects * points * spec.outputs
    return Case(
        "mlp",
        f"{objects} x {points} points, {spec.activation} {spec.hidden} x {spec.layers}, values",
        flops,
        NUMBER * moved,
        partial(field_values_twin, theta, coords, spec),
        ours,
    )


def pooled_rows(objects: int, precision: str, draw: torch.Generator) -> Case:
    """The last layer of the paper's encoder."""
    rows, width, numbers = 1_539, 1_024, 1_024
    x = _uniform((objects, rows, width), draw)
    weight, bias = _uniform((numbers, width), draw), _uniform((numbers,), draw)
    run = rows_pool if x.is_cuda else rows_pool_twin
    more = (precision,) if x.is_cuda else ()
    return Case(
        "rows_pool",
        f"{objects} x {rows} rows of {width} to {numbers}",
        2 * objects * rows * width * numbers,
        NUMBER * (x.numel() + weight.numel() + numbers) + (NUMBER + 8) * objects * numbers,
        lambda: rows_pool_twin(x, weight, bias)[0],
        lambda: run(x, weight, bias, *more)[0],
    )


def decoded(points: int, precision: str, draw: torch.Generator) -> Case:
    """The paper's decoder at a block of a grid; what the embedding adds is at hand."""
    hidden, octaves = 512, 10
    coded = 3 + 6 * octaves
    scale = hidden**-0.5
    layers = (
        _uniform((2, 1, hidden), draw),
        _uniform((2, hidden, coded), draw) * scale,
        _uniform((4, hidden, hidden), draw) * scale,
        _uniform((4, hidden), draw) * scale,
        _uniform((1, hidden), draw) * scale,
        _uniform((1,), draw),
    )
    coords = _uniform((1, points, 3), draw)
    run = decode if coords.is_cuda else decode_twin
    macs = 2 * hidden * coded + 4 * hidden**2 + hidden
    moved = sum(part.numel() for part in layers) + 4 * points
    return Case(
        "decode",
        f"{points} points, hidden {hidden}",
        2 * points * macs,
        NUMBER * moved,
        partial(decode_twin, *layers, coords, octaves, "radians"),
        partial(run, *layers, coords, octaves, "radians", precision),
    )


def rendered(rays: int, draw: torch.Generator) -> Iterator[Case]:
    """March through a ball in a grid of 128^3, and add up what the samples show."""
    samples, side = 1_024, 128
    at = torch.linspace(-1, 1, side, device=draw.device)
    x, y, z = torch.meshgrid(at, at, at, indexing="ij")
    grid = x.square() + y.square() + z.square() < 0.5
    origins = torch.nn.functional.normalize(_uniform((rays, 3), draw), dim=1) * 3
    towards = torch.nn.functional.normalize(_uniform((rays, 3), draw) * 0.6 - origins, dim=1)
    bundle = Rays(origins, towards)
    found = march_twin(bundle, grid, samples)
    taken, lattice = len(found.ray), rays * samples / DIAGONAL * 2  # about 2 units in the cube
    size = f"{rays} rays, {taken} samples"
    yield Case(
        "march",
        size,
        20 * lattice,  # a point, its cell and its bit
        24 * rays + side**3 / 8 + 10 * taken + NUMBER * rays,
        lambda: march_twin(bundle, grid, samples).depths(),
        lambda: march(bundle, grid, samples).depths(),
    )
    colours, density = _uniform((taken, 3), draw).abs(), _uniform((taken,), draw).abs() * 40
    depths = found.depths()
    run = partial(composite, colours, density, depths, found.step, found.ray, rays)
    yield Case(
        "composite",
        size,
        16 * taken,  # two exponentials, five products and sums
        (5 * NUMBER + 8) * taken + 5 * NUMBER * rays,
        lambda: run(backend="torch").colour,
        lambda: run().colour,
    )


def neighbours(rows: int, draw: torch.Generator) -> Case:
    """The candidates of 100 queries among many embeddings."""
    asked, numbers, k = 100, 1_024, 10 + SPARE
    queries, gallery = _uniform((asked, numbers), draw), _uniform((rows, numbers), draw)
    scale, shift = 1 / gallery.norm(dim=1), gallery.new_zeros(rows)

    def best(choose: Callable[..., Tensor]) -> Tensor:  # in the order of the rows
        return choose(queries, gallery, scale, shift, k).sort(dim=1).values.float()

    return Case(
        "neighbours",
        f"{asked} queries, {rows} rows of {numbers}, best {k}",
        2 * asked * rows * numbers,
        NUMBER * (gallery.numel() + queries.numel() + 2 * rows) + 8 * asked * k,
        partial(best, best_rows_twin),
        partial(best, best_rows),
    )


def _start(spec: NetworkSpec, objects: int, device: torch.device) -> Tensor:
    init: Any = siren_init if spec.activation == "sine" else radiance_init
    one: Tensor = init(spec, seed=0)
    return one.to(device).repeat(objects, 1)


def _uniform(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=draw, device=draw.device) * 2 - 1
