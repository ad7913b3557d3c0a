"""What the samples on a ray add up to, by PyTorch or by nerfacc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.errors import DeviceError, UsageFault

BACKENDS = ("auto", "torch", "nerfacc")


@dataclass(frozen=True)
class Composed:
    """Sums over each ray's samples: colour [R, 3] without background, opacity [R], depth [R].

    depth: weighted sum, so the opacity times the mean.
    """

    colour: Tensor
    opacity: Tensor
    depth: Tensor


def composite(
    colours: Tensor,
    density: Tensor,
    depths: Tensor,
    step: float | Tensor,
    ray: Tensor,
    rays: int,
    *,
    backend: str = "auto",
) -> Composed:
    """Add up samples along rays (Max 1995): weight T (1 - exp(-density step)); differentiable.

    Each sample stands for its own interval; none is dropped. Samples that stand for nothing have a
    step of 0.

    Args:
        colours: [M, 3].
        density: [M], per unit of length.
        depths: [M], distance from the ray's origin.
        step: length of the intervals, a number or [M].
        ray: [M], whose the samples are, ascending.
        rays: R.
        backend: torch; nerfacc: its packed kernels on a GPU, its dense functions on a CPU; auto:
            nerfacc on a GPU where its kernels can be had, else torch.

    Raises:
        UsageFault: nerfacc is asked for and not installed, or the backend is unknown.
        DeviceError: nerfacc's kernels are asked for and cannot be built.
    """
    if backend not in BACKENDS:
        raise UsageFault(f"renderer {backend!r} is unknown", hint=f"use {', '.join(BACKENDS)}")
    if backend == "torch" or (backend == "auto" and not _kernels(density.device)):
        weights = ray_weights(density, step, ray, rays)
        sums = torch.cat([colours, torch.ones_like(density)[:, None], depths[:, None]], 1)
        # in the weights' precision: under autocast colours come in half
        sums = sums.to(weights.dtype) * weights[:, None]
        found = sums.new_zeros(rays, 5).index_add(0, ray, sums)
        return Composed(found[:, :3], found[:, 3], found[:, 4])
    return _by_nerfacc(colours, density, depths, step, ray, rays)


def ray_weights(density: Tensor, step: float | Tensor, ray: Tensor, rays: int) -> Tensor:
    """Give each sample's share of its ray's colour: [M]."""
    optical = density * step
    passed = sum_before(optical, ray, rays)
    weights: Tensor = torch.exp(-passed).to(optical.dtype) * -torch.expm1(-optical)
    return weights


def sum_before(values: Tensor, ray: Tensor, rays: int) -> Tensor:  # [M] -> [M], double
    """Add up what comes before each sample on its own ray."""
    # in double: the sum runs over all rays, and a ray's own is a small difference of it
    total = values.double().cumsum(0)
    before = total - values
    if not len(ray):
        return before
    counts = torch.bincount(ray, minlength=rays)
    first = (counts.cumsum(0) - counts).clamp_max(len(ray) - 1)
    return before - before[first][ray]


def _by_nerfacc(
    colours: Tensor,
    density: Tensor,
    depths: Tensor,
    step: float | Tensor,
    ray: Tensor,
    rays: int,
) -> Composed:
    nerfacc = _nerfacc()
    half = torch.as_tensor(step, dtype=depths.dtype, device=depths.device).expand_as(depths) / 2
    if density.device.type == "cuda":
        if not _kernels(density.device):
            raise DeviceError(
                "nerfacc's CUDA kernels are not there, and could not be built",
                hint="`pip install nerfacc` with a matching CUDA toolkit, or `--renderer torch`",
            )
        weights, _, _ = nerfacc.render_weight_from_density(
            depths - half, depths + half, density, ray_indices=ray, n_rays=rays
        )
    else:
        # its packed functions are CUDA only: rays are laid out as a rectangle, filled up with air
        counts = torch.bincount(ray, minlength=rays)
        place = torch.arange(len(ray)) - (counts.cumsum(0) - counts)[ray]
        wide = (rays, int(counts.max()) if len(ray) else 0)

        def laid_out(values: Tensor) -> Tensor:
            return values.new_zeros(wide).index_put((ray, place), values)

        dense, _, _ = nerfacc.render_weight_from_density(
            laid_out(depths - half), laid_out(depths + half), laid_out(density)
        )
        weights = dense[ray, place]
    parts = [
        nerfacc.accumulate_along_rays(weights, values=v, ray_indices=ray, n_rays=rays)
        for v in (colours, None, depths[:, None])
    ]
    return Composed(parts[0], parts[1][:, 0], parts[2][:, 0])


def _nerfacc() -> Any:
    try:
        import nerfacc
    except ImportError as error:
        raise UsageFault(
            "nerfacc is not installed", hint="`pip install 'nf2vec[nerf]'`, or `--renderer torch`"
        ) from error
    return nerfacc


def _kernels(device: torch.device) -> bool:
    """Tell whether nerfacc's kernels can be had; they are built when first asked for."""
    if device.type != "cuda":
        return False
    try:
        from nerfacc.cuda._backend import _C
    except Exception:
        return False
    return _C is not None
