"""What the samples on a ray add up to: by a kernel of our own, by PyTorch or by nerfacc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import kernels_serve
from nf2vec_cli.errors import DeviceError, UsageFault

BACKENDS = ("auto", "torch", "nerfacc")
DARK = 1e4  # optical length behind which nothing is seen in any precision


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
    """Add up samples along rays (Max 1995): weight T (1 - exp(-density step)).

    Differentiable in colours and density. Each sample stands for its own interval; none is dropped.
    Samples that stand for nothing have a step of 0. A sample that is no number spoils its own ray.

    Args:
        colours: [M, 3].
        density: [M], per unit of length.
        depths: [M], distance from the ray's origin.
        step: length of the intervals, a number or [M].
        ray: [M], whose the samples are, ascending.
        rays: R.
        backend: torch; nerfacc: its packed kernels on a GPU, its dense functions on a CPU; auto:
            on a GPU the kernel of `core.gpu`, or nerfacc's where they can be had, else torch.

    Raises:
        UsageFault: nerfacc is asked for and not installed, or the backend is unknown.
        DeviceError: nerfacc's kernels are asked for and cannot be built.
    """
    if backend not in BACKENDS:
        raise UsageFault(f"renderer {backend!r} is unknown", hint=f"use {', '.join(BACKENDS)}")
    own = backend == "auto" and _serves(density)
    if backend == "nerfacc" or (backend == "auto" and not own and _kernels(density.device)):
        return _by_nerfacc(colours, density, depths, step, ray, rays)
    lengths = step if isinstance(step, Tensor) else density.new_full((), step)
    add = _Sums.apply if own else ray_sums_twin
    found = add(colours, density, depths, lengths, ray, rays)
    return Composed(found[:, :3], found[:, 3], found[:, 4])


def ray_sums(
    colours: Tensor,  # [M, 3]
    density: Tensor,  # [M]
    depths: Tensor,  # [M]
    step: Tensor,  # [M] or []
    ray: Tensor,  # [M]
    rays: int,
) -> Tensor:  # [R, 5]
    """Add up colour, opacity and depth of each ray, by the kernel where it serves."""
    if _serves(density):
        from nf2vec_cli.core.gpu import composite as kernel

        return kernel.ray_sums(colours, density, depths, step, ray, rays)
    return ray_sums_twin(colours, density, depths, step, ray, rays)


def ray_sums_twin(
    colours: Tensor, density: Tensor, depths: Tensor, step: Tensor, ray: Tensor, rays: int
) -> Tensor:
    """Add up samples by PyTorch, which also differentiates it."""
    weights = ray_weights(density, step, ray, rays)
    sums = torch.cat([colours, torch.ones_like(density)[:, None], depths[:, None]], 1)
    # in the weights' precision: under autocast colours come in half
    sums = sums.to(weights.dtype) * weights[:, None]
    return sums.new_zeros(rays, 5).index_add(0, ray, sums)


def ray_slopes(
    grad: Tensor,  # [R, 5]
    colours: Tensor,
    density: Tensor,
    depths: Tensor,
    step: Tensor,
    ray: Tensor,
    sums: Tensor,  # [R, 5]
) -> tuple[Tensor, Tensor]:  # [M, 3], [M]
    """Give the slopes in colours and densities of a loss whose slopes in the sums are known."""
    if _serves(density):
        from nf2vec_cli.core.gpu import composite as kernel

        return kernel.ray_slopes(grad, colours, density, depths, step, ray, sums)
    return ray_slopes_twin(grad, colours, density, depths, step, ray, sums)


def ray_slopes_twin(
    grad: Tensor,
    colours: Tensor,
    density: Tensor,
    depths: Tensor,
    step: Tensor,
    ray: Tensor,
    sums: Tensor,
) -> tuple[Tensor, Tensor]:
    """Give slopes by PyTorch: what its own, of `ray_sums_twin`, must agree with."""
    weights = ray_weights(density, step, ray, len(sums))
    seen = grad[ray]
    worth = seen[:, 3] + (seen[:, :3] * colours).sum(1) + seen[:, 4] * depths
    share = (weights * worth).double()
    total = share.new_zeros(len(sums)).index_add(0, ray, share)
    behind = total[ray] - sum_before(share, ray, len(sums)) - share
    optical = (density * step).clamp_max(DARK)
    left = torch.exp(-sum_before(optical, ray, len(sums)) - optical)
    slopes = (left * worth - behind) * step
    return (weights[:, None] * seen[:, :3]).to(colours.dtype), slopes.to(density.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5], output)


class _Sums(torch.autograd.Function):
    """`ray_sums` with its slopes. The op below does the same, and imports the compiler."""

    forward = staticmethod(ray_sums)
    setup_context = staticmethod(_keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *ray_slopes(grad, *ctx.saved_tensors), None, None, None, None


# for tests by PyTorch's dispatcher: the program calls the functions, without the compiler's import
composite_op = torch.library.custom_op("nf2vec::composite", ray_sums, mutates_args=())
slopes_op = torch.library.custom_op("nf2vec::composite_slopes", ray_slopes, mutates_args=())


@composite_op.register_fake
def _(_c: Tensor, density: Tensor, _d: Tensor, _s: Tensor, _r: Tensor, rays: int) -> Tensor:
    return density.new_empty(rays, 5)


@slopes_op.register_fake
def _(_g: Tensor, colours: Tensor, density: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return colours.new_empty(colours.shape), density.new_empty(density.shape)


def _slopes_of_op(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *slopes_op(grad, *ctx.saved_tensors), None, None, None, None


composite_op.register_autograd(_slopes_of_op, setup_context=_keep)


def ray_weights(density: Tensor, step: float | Tensor, ray: Tensor, rays: int) -> Tensor:
    """Give each sample's share of its ray's colour: [M]."""
    optical = density * step
    passed = sum_before(optical.clamp_max(DARK), ray, rays)
    if passed.requires_grad:
        # slopes run through the sum to all rays before; those of the ray itself stay no numbers
        passed.register_hook(lambda slope: None if slope is None else _numbers(slope))
    weights: Tensor = torch.exp(-passed).to(optical.dtype) * -torch.expm1(-optical)
    return weights


def sum_before(values: Tensor, ray: Tensor, rays: int) -> Tensor:  # [M] -> [M], double
    """Add up what comes before each sample on its own ray; what is no number counts as 0."""
    # in double: the sum runs over all rays, and a ray's own is a small difference of it
    counted = _numbers(values.double())
    before = counted.cumsum(0) - counted
    if not len(ray):
        return before
    counts = torch.bincount(ray, minlength=rays)
    first = (counts.cumsum(0) - counts).clamp_max(len(ray) - 1)
    return before - before[first][ray]


def _numbers(values: Tensor) -> Tensor:
    return values.nan_to_num(0.0, 0.0, 0.0)


def _serves(density: Tensor) -> bool:
    return kernels_serve(density) and density.dtype != torch.float64


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
