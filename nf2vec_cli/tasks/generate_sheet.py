"""A picture of generated shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.decoded_radiance import DecodedRadiance
from nf2vec_cli.tasks.radiance_cloud import (
    WHITE,
    Lens,
    decoded_radiance,
    lens_of,
    picture_rays,
)
from nf2vec_cli.tasks.rebuild import NATURAL, Form, build
from nf2vec_cli.tasks.reconstruct import MESH_RESOLUTION, PICTURED
from nf2vec_cli.tasks.sheet import SIZE, Tile, picture_of, write_sheet
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

POINTS = 8_192  # of a cloud
COLUMNS = 6


def draw_sheet(
    store: Store,
    decoder: Decoder,
    ids: Sequence[str],
    z: Floats,
    file: Path,
    *,
    jobs: int = 0,
    progress: Progress,
) -> None:
    """Write pictures of the first shapes, decoded from embeddings [B, E], as one PNG."""
    lens = lens_of(store)
    each = [torch.from_numpy(one) for one in z[:PICTURED]]
    draw: Callable[[Any], NDArray[np.uint8]]
    work: list[Any]
    if lens is not None:
        work, draw = [decoded_radiance(decoder, one, lens) for one in each], partial(_seen, lens)
    else:
        form = NATURAL[store.field]
        cells = FitConfig.model_validate(store.config).voxels
        at = cells if form is Form.voxels else MESH_RESOLUTION
        work = [(DecodedField(decoder, one, store.field), store.field, form, at) for one in each]
        draw = _picture
    progress.start(len(work), "pictures")
    tiles = []
    workers = max(1, min(jobs or available_cores(), len(work)))
    for name, drawn in zip(ids, spread(draw, work, workers=workers), strict=False):
        progress.advance(1, name)
        tiles.append(Tile((picture_of(None) if isinstance(drawn, WorkerDied) else drawn,), (name,)))
    write_sheet(tiles, file, columns=min(COLUMNS, len(tiles)))


def _picture(job: tuple[DecodedField, str, Form, int]) -> NDArray[np.uint8]:
    field, kind, form, resolution = job
    shape = build(field, kind, form, resolution=resolution, points=POINTS).shape
    return picture_of(shape)


def _seen(lens: Lens, field: DecodedRadiance) -> NDArray[np.uint8]:
    """Look at decoded radiance through the lens's first camera."""
    rays, (width, height) = picture_rays(lens.cameras, 0, SIZE)
    colour = field.render(rays, background=WHITE).colour.view(height, width, 3)
    pixels = (colour.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE)))
