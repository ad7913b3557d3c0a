"""One field of any kind as one small picture: what sheets and pages show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.core.orbit import RADIUS, focal_length, orbit
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.radiance import read_cameras
from nf2vec_cli.store.schema import CAMERAS, Status
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.radiance_shape import reach_of
from nf2vec_cli.tasks.rebuild import NATURAL, Form, Shown, build
from nf2vec_cli.tasks.sheet import SIZE, picture_of

POINTS = 8_192  # of a cloud
ASKED = 8  # objects whose cameras tell which axis points up
UP = "up"  # attribute of a store of embeddings alone
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Look:
    """One field to be drawn. form: what is made of it first; resolution: for that.

    up: the axis that points up in a picture of radiance.
    """

    field: Shown
    kind: str
    form: Form
    resolution: int
    up: str = "z"


def looks(store: Store, *, resolution: int) -> Looks:
    """Say how a store's fields are drawn; resolution: grid points of meshes and clouds."""
    form = NATURAL[store.field]
    cells = fit_config(store).voxels
    at = cells if form is Form.voxels else resolution
    return Looks(store.field, form, at, up_axis(store))


@dataclass(frozen=True)
class Looks:
    """How the fields of one store are drawn."""

    kind: str
    form: Form
    resolution: int
    up: str

    def of(self, field: Shown) -> Look:
        return Look(field, self.kind, self.form, self.resolution, self.up)


def picture(look: Look) -> NDArray[np.uint8]:  # [SIZE, SIZE, 3]
    """Draw one field. Runs in a worker."""
    if isinstance(look.field, Renderable):
        return picture_of_radiance(look.field, up=look.up)
    built = build(look.field, look.kind, look.form, resolution=look.resolution, points=POINTS)
    return picture_of(built.shape)


def picture_of_radiance(
    field: Renderable, *, size: int = SIZE, up: str = "z", background: Sequence[float] = WHITE
) -> NDArray[np.uint8]:  # [size, size, 3]
    """Render a field from in front and above, from as far as it takes to see all of it."""
    pose = orbit(1, radius=RADIUS * reach_of(field), up=up)
    rays = camera_rays(pose, torch.tensor([focal_length(size)]), size, size)
    seen = field.render(rays, background=background).colour
    return in_bytes(seen).reshape(size, size, 3)


def in_bytes(values: torch.Tensor) -> NDArray[np.uint8]:
    """Turn numbers of [0, 1] into bytes."""
    whole: NDArray[np.uint8] = (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return whole


def up_axis(store: Store) -> str:
    """Tell which axis points up in a store's radiance: "y" or "z".

    As the store says, if it is one of embeddings alone; else as its cameras hold it, whose axes
    that point up add up to it: pictures are mostly of a world with z up, and those that `fit` makes
    of meshes have y up, as glTF has it. Without cameras: z.
    """
    told = store.group.attrs.get(UP)
    if told in ("y", "z"):
        return str(told)
    rows = store.rows(Status.DONE)[:ASKED]
    if store.field != "nerf" or CAMERAS not in store.group or not len(rows):
        return "z"
    try:
        known = [one.poses[:, :, 1] for one in read_cameras(store, rows)]
    except StoreError:  # damaged: a picture is not worth the run
        return "z"
    total = np.abs(np.concatenate(known).sum(0))
    return "y" if total[1] > total[2] else "z"
