"""What decoded radiance is compared by: pictures through stored cameras, and points seen there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.march import Rays
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import StoreError
from nf2vec_cli.metrics import Points
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.radiance import Cameras, read_cameras, read_grids
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.decoded_radiance import DecodedRadiance
from nf2vec_cli.tasks.radiance_field import RadianceField, Renderable

WHITE = (1.0, 1.0, 1.0)
SEEN = 0.5  # opacity from which a ray ends on a surface, as in a fit
CELLS = 48  # of the grid of a decoded object along an axis
PIXELS = 128  # of the longer side of a picture that is compared, at most
CLOUD_VIEWS, CLOUD_PIXELS = 24, 48  # pictures whose rays end on a cloud's points, at most


@dataclass(frozen=True)
class Lens:
    """How decoded objects are looked at: an object's cameras, samples of the cube's diagonal."""

    cameras: Cameras
    samples: int


def lens_of(store: Store, rows: NDArray[np.int64] | None = None) -> Lens | None:
    """Give the cameras of the first of some objects, or of the store's; of shapes there are none.

    Raises:
        StoreError: the store keeps no cameras, or has no fitted object.
    """
    if store.field != "nerf":
        return None
    known = store.rows(Status.DONE) if rows is None else rows
    if not len(known):
        raise StoreError(
            f"{store.path} holds embeddings alone: it keeps no cameras to look at them by",
            hint="name the store that was fitted: `nf2vec info STORE` tells",
        )
    return Lens(read_cameras(store, known[:1])[0], fit_config(store).samples)


def picture_rays(cameras: Cameras, at: int, pixels: int) -> tuple[Rays, tuple[int, int]]:
    """Give the rays of a camera's picture, made smaller if that is wanted, and width and height."""
    width, height = cameras.size[at].tolist()
    shrink = min(1.0, pixels / max(width, height))
    focal = torch.from_numpy(cameras.focal[at : at + 1]) * shrink
    size = round(width * shrink), round(height * shrink)
    return camera_rays(torch.from_numpy(cameras.poses[at : at + 1]), focal, *size), size


def decoded_radiance(decoder: Decoder, z: Floats | Tensor, lens: Lens) -> DecodedRadiance:
    """Open an embedding [E] as radiance."""
    return DecodedRadiance(decoder, torch.as_tensor(z), samples=lens.samples, cells=CELLS)


def radiance_cloud(field: Renderable, lens: Lens, points: int) -> Points | None:
    """Draw points where rays of the lens's cameras end in a field, as the store keeps them of fits.

    None: no ray ends in it.
    """
    cameras = lens.cameras
    chosen = np.linspace(0, len(cameras.focal) - 1, min(CLOUD_VIEWS, len(cameras.focal)))
    ends = []
    for at in chosen.astype(int):
        rays, _ = picture_rays(cameras, at, CLOUD_PIXELS)
        seen = field.render(rays, background=WHITE)
        ends.append((rays.origins + rays.directions * seen.depth[:, None])[seen.opacity > SEEN])
    found = torch.cat(ends).numpy().clip(-1, 1).astype(np.float64)
    if not len(found):
        return None
    drawn: Points = found[
        np.random.default_rng(0).choice(len(found), points, replace=len(found) < points)
    ]
    return drawn


def picture_psnr(store: Store, row: int, decoder: Decoder, z: Tensor) -> float:
    """Render a stored field and an embedding [E], on white, by the first camera held out: dB."""
    lens = lens_of(store, np.array([row]))
    assert lens is not None
    rays, _ = picture_rays(lens.cameras, int(np.argmax(lens.cameras.held)), PIXELS)
    spec, grid = NetworkSpec(**store.network), read_grids(store, [row])[0]
    stored = RadianceField(store.weights([row])[0], spec, grid, lens.samples)
    decoded = decoded_radiance(decoder, z, lens)
    one, other = (field.render(rays, background=WHITE).colour for field in (stored, decoded))
    return psnr_of(one - other)


def psnr_of(away: Tensor) -> float:
    """Give the decibels of differences of colours."""
    return float(-10 * away.square().mean().clamp_min(1e-10).log10())
