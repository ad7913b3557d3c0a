"""A picture of generated shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.look import looks, picture
from nf2vec_cli.tasks.open_fields import decoded
from nf2vec_cli.tasks.reconstruct import MESH_RESOLUTION, PICTURED
from nf2vec_cli.tasks.sheet import Tile, picture_of, write_sheet
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

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
    how = looks(store, resolution=MESH_RESOLUTION)
    work = [how.of(decoded(store, decoder, one)) for one in z[:PICTURED]]
    progress.start(len(work), "pictures")
    tiles = []
    workers = max(1, min(jobs or available_cores(), len(work)))
    for name, drawn in zip(ids, spread(picture, work, workers=workers), strict=False):
        progress.advance(1, name)
        tiles.append(Tile((picture_of(None) if isinstance(drawn, WorkerDied) else drawn,), (name,)))
    write_sheet(tiles, file, columns=min(COLUMNS, len(tiles)))
