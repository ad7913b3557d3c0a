"""Shapes between two objects: along the line of their embeddings, and of their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config import Origin
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.write import FORMATS, write_bytes, write_shape
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.look import picture_of_radiance, up_axis
from nf2vec_cli.tasks.open_fields import open_fields
from nf2vec_cli.tasks.picture_object import png
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.rebuild import NATURAL, Form, Shown, build
from nf2vec_cli.tasks.reconstruct import MESH_RESOLUTION
from nf2vec_cli.tasks.reconstruct_object import count_of, placed
from nf2vec_cli.tasks.sheet import Tile, picture_of, write_sheet
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

SHEET = "interpolation.png"
WHITE = 250  # of 255: what is darker is seen


@dataclass(frozen=True)
class Between:
    """One shape on the way. share: 0 at the first object, 1 at the second.

    count: as `Rebuilt`; of a picture, the pixels that show something.
    """

    origin: str
    share: float
    file: str | None
    count: int
    problem: str | None = None


@dataclass(frozen=True)
class _Stop:
    origin: Origin
    share: float
    field: Shown
    kind: str
    form: Form
    resolution: int
    points: int
    transform: NDArray[np.float64]
    file: Path
    up: str


def interpolate(
    path: Path,
    ends: tuple[str, str],
    out: Path,
    *,
    steps: int = 7,
    origins: Sequence[Origin] = tuple(Origin),
    encoder: str | None = None,
    resolution: int | None = None,
    points: int = 8_192,
    jobs: int = 0,
    progress: Progress | None = None,
) -> Iterator[Between]:
    """Write the shapes on the line between two objects, and one picture of them all.

    Paper, Figs. 6 to 8: embeddings pass through shapes; weights are the baseline. Files are
    OUT/ORIGIN/STEP.suffix in units that go from the first object's to the second's; of radiance
    they are pictures.

    Args:
        path: the store.
        ends: ids of the two objects.
        out: folder for the files; made if it is not there.
        steps: shapes on the line, the two ends included.
        origins: what the lines are drawn in, a row of the picture each.
        encoder: whose embeddings, as `open_encoder` takes it; None: the newest.
        resolution: as `reconstruct`.
        points: of a cloud.
        jobs: worker processes; 0 for one a core.
        progress: told about each shape.

    Raises:
        StoreError: an object is unknown, not fitted, or has no embedding.
    """
    progress = progress or Silent()
    store = open_store(path)
    a, b = (int(row) for row in store.find(ends))
    if a == b:
        raise StoreError(f"{ends[0]!r} and {ends[1]!r} are the same object")
    stops = list(_stops(store, (a, b), out, steps, origins, encoder, resolution, points))
    workers = max(1, min(jobs or available_cores(), len(stops)))
    tiles = []
    with progress:
        progress.start(len(stops), "interpolate")
        for stop, result in zip(stops, spread(_made, stops, workers=workers), strict=True):
            name = f"{stop.origin} {stop.share:.2f}"
            progress.advance(1, name)
            if isinstance(result, WorkerDied):
                yield Between(stop.origin, stop.share, None, 0, "its worker died (out of memory?)")
                tiles.append(Tile((picture_of(None),), (name,)))
                continue
            found, picture = result
            tiles.append(Tile((picture,), (name,)))
            yield found
        write_sheet(tiles, out / SHEET, columns=steps)


def _stops(
    store: Store,
    rows: tuple[int, int],
    out: Path,
    steps: int,
    origins: Sequence[Origin],
    encoder: str | None,
    resolution: int | None,
    points: int,
) -> Iterator[_Stop]:
    form = NATURAL[store.field]
    transform = store.column("transform")[list(rows)]
    cells = fit_config(store).voxels
    natural, up = cells if form is Form.voxels else MESH_RESOLUTION, up_axis(store)
    for origin in origins:
        fields = open_fields(
            store, origin, encoder=encoder if origin is Origin.embeddings else None
        )
        fields.require(np.asarray(rows, np.int64))
        for step, share in enumerate(np.linspace(0, 1, steps).tolist()):
            yield _Stop(
                origin=origin,
                share=share,
                field=fields.between(*rows, share),
                kind=store.field,
                form=form,
                resolution=resolution or natural,
                points=points,
                transform=transform[0] + share * (transform[1] - transform[0]),
                file=out / origin / f"{step}.{FORMATS[form][0]}",
                up=up,
            )


def _made(stop: _Stop) -> tuple[Between, NDArray[np.uint8]]:
    """Build, write and draw one shape. Runs in a worker."""
    if isinstance(stop.field, Renderable):
        return _rendered(stop, stop.field)
    shape = build(
        stop.field, stop.kind, stop.form, resolution=stop.resolution, points=stop.points
    ).shape
    count = count_of(shape)
    if not count:
        problem = f"nothing of the field is left to make a {stop.form} of"
        return Between(stop.origin, stop.share, None, 0, problem), picture_of(None)
    centre, scale = stop.transform[:3], float(stop.transform[3])
    write_shape(placed(shape, None, None, centre, scale), stop.file)
    return Between(stop.origin, stop.share, str(stop.file), count), picture_of(shape)


def _rendered(stop: _Stop, field: Renderable) -> tuple[Between, NDArray[np.uint8]]:
    picture = picture_of_radiance(field, up=stop.up)
    count = int((picture < WHITE).any(2).sum())
    if not count:
        problem = "nothing of the field is left to take a picture of"
        return Between(stop.origin, stop.share, None, 0, problem), picture
    write_bytes(png(picture), stop.file)
    return Between(stop.origin, stop.share, str(stop.file), count), picture
