"""Samples of rays that fall in occupied cells.

Object space is [-1, 1]^3. A ray is sampled at the lattice t = near + (k + j) dt, from where it
enters the cube, at the points that fall in an occupied cell: what nerfacc's occupancy grid does.
Samples of a ray are next to each other, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import kernels_serve

DIAGONAL = 2 * 3**0.5  # of the cube
MARCHED = 1 << 17  # lattice points that are looked up at once


@dataclass(frozen=True)
class Rays:
    """Origins and directions of unit length, [R, 3] each, in object space."""

    origins: Tensor
    directions: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, part: slice | Tensor) -> Rays:
        return Rays(self.origins[part], self.directions[part])


@dataclass(frozen=True)
class Samples:
    """Samples of R rays. ray: [M], whose they are, ascending; place: [M], k of the lattice.

    near: [R], where each ray enters the cube. step: dt.
    """

    ray: Tensor
    place: Tensor
    near: Tensor
    step: float

    def points(self, rays: Rays, jitter: Tensor | float = 0.5) -> Tensor:  # -> [M, 3]
        """Give where the samples lie; jitter: [M] or a number, within 0 and 1."""
        t = self.depths(jitter)
        return torch.addcmul(rays.origins[self.ray], rays.directions[self.ray], t[:, None])

    def depths(self, jitter: Tensor | float = 0.5) -> Tensor:  # -> [M]
        """Give how far along their rays the samples lie."""
        return self.near[self.ray] + (self.place + jitter) * self.step


def march(rays: Rays, grid: Tensor, samples: int) -> Samples:
    """Find the samples of rays that fall in occupied cells.

    Args:
        rays: R rays.
        grid: [G, G, G] bool, cell (i, j, k) at x, y, z; on the rays' device.
        samples: of the cube's diagonal; the step is its length over this.
    """
    if kernels_serve(rays.origins):
        grids = grid[None]
        return _by_kernel(
            rays.origins[None], rays.directions[None], grids, pack_bits(grids), samples
        )
    return march_twin(rays, grid, samples)


def march_fields(
    origins: Tensor,  # [B, R, 3]
    directions: Tensor,  # [B, R, 3]
    packed: Tensor,  # [B, G^3 / 8]
    side: int,
    samples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the samples of B fields' rays at once.

    Args:
        origins: in object space.
        directions: of unit length.
        packed: grids as `pack_bits` gives them.
        side: G.
        samples: of the cube's diagonal.

    Returns:
        ray, place, near of `Samples`, of B R rays: those of a field after those of the one before.
    """
    grids = unpack_bits(packed, side)
    if kernels_serve(origins):
        found = _by_kernel(origins, directions, grids, packed, samples)
        return found.ray, found.place, found.near
    fields, rays = origins.shape[:2]
    parts = [
        march_twin(Rays(*one), grid, samples)
        for *one, grid in zip(origins, directions, grids, strict=True)
    ]
    empty = torch.empty(0, dtype=torch.int64, device=origins.device)
    return (
        torch.cat([empty, *(part.ray + rays * number for number, part in enumerate(parts))]),
        torch.cat([empty.to(torch.int16), *(part.place for part in parts)]),
        torch.stack([part.near for part in parts]).view(-1) if fields else origins.new_empty(0),
    )


# for tests by PyTorch's dispatcher: the program calls `march_fields`, without the compiler's import
march_op = torch.library.custom_op("nf2vec::march", march_fields, mutates_args=())


@march_op.register_fake
def _(
    origins: Tensor, _directions: Tensor, _packed: Tensor, _side: int, _samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    found = torch.library.get_ctx().new_dynamic_size()
    return (
        origins.new_empty(found, dtype=torch.int64),
        origins.new_empty(found, dtype=torch.int16),
        origins.new_empty(origins.shape[0] * origins.shape[1]),
    )


def march_twin(rays: Rays, grid: Tensor, samples: int) -> Samples:
    """Find samples as `march` does, by PyTorch on any device."""
    step = DIAGONAL / samples
    device = rays.origins.device
    near, first, span = _spans(rays.origins, rays.directions, grid, step)
    hits = (span > 0).nonzero()[:, 0]
    found_ray, found_place = [], []
    most = int(span.max()) if len(span) else 0
    offset = torch.arange(most, device=device)
    for part in hits.split(max(1, MARCHED // max(most, 1))):
        places = first[part, None] + offset
        t = near[part, None] + (places + 0.5) * step
        points = rays.origins[part, None] + rays.directions[part, None] * t[..., None]
        taken = occupied(points, grid) & (offset < span[part, None])
        ray, place = taken.nonzero(as_tuple=True)
        found_ray.append(part[ray])
        found_place.append(places[ray, place].to(torch.int16))
    empty = torch.empty(0, dtype=torch.int64, device=device)
    return Samples(
        torch.cat([empty, *found_ray]),
        torch.cat([empty.to(torch.int16), *found_place]),
        near,
        step,
    )


def _by_kernel(
    origins: Tensor, directions: Tensor, grids: Tensor, packed: Tensor, samples: int
) -> Samples:
    from nf2vec_cli.core.gpu.march import samples_in_cells

    step = DIAGONAL / samples
    near, first, span = _spans(origins, directions, grids, step)
    ray, place = samples_in_cells(
        origins, directions, near, first, span, packed, grids.shape[-1], step
    )
    return Samples(ray, place, near.view(-1), step)


def occupied(points: Tensor, grid: Tensor) -> Tensor:  # [.., 3] -> [..] bool
    """Tell which points lie in an occupied cell; outside the cube none does."""
    return at_cells(points, grid) & (points.abs() < 1).all(-1)


def at_cells(points: Tensor, grid: Tensor) -> Tensor:  # [.., 3], [G, G, G] -> [..]
    """Look up the cells that points lie in; of points outside the cube, the nearest."""
    side = len(grid)
    cell = ((points + 1) * (side / 2)).long().clamp_(0, side - 1)
    return grid.view(-1)[(cell[..., 0] * side + cell[..., 1]) * side + cell[..., 2]]


def pack_bits(grids: Tensor) -> Tensor:  # [B, G, G, G] bool -> [B, G^3 / 8] uint8
    """Pack occupied cells, 8 to a byte, the first in the highest bit, as stores keep them."""
    cells = grids.flatten(1).to(torch.uint8)
    cells = torch.nn.functional.pad(cells, (0, -cells.shape[1] % 8))
    bits = cells.view(len(cells), cells.shape[1] // 8, 8)
    return (bits << _shifts(grids.device)).sum(-1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, side: int) -> Tensor:  # [B, G^3 / 8] -> [B, G, G, G] bool
    """Undo `pack_bits`."""
    bits = (packed[..., None] >> _shifts(packed.device)) & 1
    return bits.flatten(1)[:, : side**3].reshape(len(packed), side, side, side).bool()


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)


def _spans(
    origins: Tensor, directions: Tensor, grids: Tensor, step: float
) -> tuple[Tensor, Tensor, Tensor]:  # [.., R, 3], [.., R, 3], [.., G, G, G] -> three of [.., R]
    """Give where rays enter the cube, and which of their lattice can lie in an occupied cell.

    near; place of the first; how many: 0 of rays that pass the occupied cells' box.
    """
    cube = torch.ones_like(origins[..., :1, :])
    near, _ = _crossing(origins, directions, -cube, cube)
    low, high = _bounds(grids)
    enter, leave = _crossing(origins, directions, low[..., None, :], high[..., None, :])
    first = ((enter - near) / step - 0.5).floor().clamp_min(0)
    last = ((leave - near) / step - 0.5).ceil()
    return near, first, torch.where(leave > enter, last - first + 1, 0)


def _bounds(grids: Tensor) -> tuple[Tensor, Tensor]:  # [.., G, G, G] -> two of [.., 3]
    """Give the corners of the box around all occupied cells; inside out if there is none."""
    side = grids.shape[-1]
    flat = grids.any(-1)
    taken = torch.stack([flat.any(-1), flat.any(-2), grids.any(-2).any(-2)], -2)
    some, each = taken.any(-1), taken.byte()
    # of equals `argmax` gives the first
    low = torch.where(some, each.argmax(-1), 1)
    high = torch.where(some, side - each.flip(-1).argmax(-1), 0)
    width = 2 / side
    return low * width - 1, high * width - 1


def _crossing(
    origins: Tensor, directions: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Give where rays enter and leave a box, [.., R] each; enter >= leave: they miss it."""
    # not 0: infinity times 0, on a face of the box, would be no number
    inverse = 1 / torch.where(directions == 0, 1e-12, directions)
    one = (low - origins) * inverse
    other = (high - origins) * inverse
    enter = torch.minimum(one, other).amax(-1).clamp_min(0)
    return enter, torch.maximum(one, other).amin(-1)
