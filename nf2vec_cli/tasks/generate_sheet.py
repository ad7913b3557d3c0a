"""A picture of generated shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.rebuild import NATURAL, Form, build
from nf2vec_cli.tasks.reconstruct import MESH_RESOLUTION, PICTURED
from nf2vec_cli.tasks.sheet import Tile, picture_of, write_sheet
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
    form = NATURAL[store.field]
    cells = FitConfig.model_validate(store.config).voxels
    at = cells if form is Form.voxels else MESH_RESOLUTION
    work = [
        (DecodedField(decoder, torch.from_numpy(one), store.field), store.field, form, at)
        for one in z[:PICTURED]
    ]
    progress.start(len(work), "pictures")
    tiles = []
    workers = max(1, min(jobs or available_cores(), len(work)))
    for name, drawn in zip(ids, spread(_picture, work, workers=workers), strict=False):
        progress.advance(1, name)
        tiles.append(Tile((picture_of(None) if isinstance(drawn, WorkerDied) else drawn,), (name,)))
    write_sheet(tiles, file, columns=min(COLUMNS, len(tiles)))


def _picture(job: tuple[DecodedField, str, Form, int]) -> NDArray[np.uint8]:
    field, kind, form, resolution = job
    shape = build(field, kind, form, resolution=resolution, points=POINTS).shape
    return picture_of(shape)
