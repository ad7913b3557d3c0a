"""Turn fields back into meshes, clouds, voxels or pictures, in the user's own units and pose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config import Origin
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.models.transform import Affine, parse_transform
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.write import FORMATS
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.cluster import open_cluster
from nf2vec_cli.tasks.open_fields import Fields, open_fields
from nf2vec_cli.tasks.picture_object import Film, Filmed, Shoot, compared, shoot
from nf2vec_cli.tasks.rebuild import NATURAL, Form
from nf2vec_cli.tasks.reconstruct_object import Chore, Rebuilt, Wanted, pictured, rebuild
from nf2vec_cli.tasks.reconstruct_pictures import check_film, shoots
from nf2vec_cli.tasks.share import Share
from nf2vec_cli.tasks.sheet import Tile, write_sheet
from nf2vec_cli.tasks.sources import file_of, roots_of, sources_of
from nf2vec_cli.tasks.spread import WorkerDied, spread, workers_for

MESH_RESOLUTION = 128
PICTURED = 24  # objects on a sheet


def reconstruct(
    path: Place,
    out: Path,
    *,
    ids: Sequence[str] = (),
    wanted: Wanted | None = None,
    sources: Path | None = None,
    compare: bool = True,
    sheet: Path | None = None,
    origin: Origin = Origin.weights,
    encoder: str | None = None,
    jobs: int = 0,
    ray: str | None = None,
    share: Share | None = None,
    renderer: str = "auto",
    device: str = "auto",
    progress: Progress | None = None,
) -> Iterator[Rebuilt | Filmed]:
    """Write one file for each fitted object, at OUT/ID.suffix, and compare it with its source.

    Pictures of radiance are OUT/ID/000.png and so on.

    Args:
        path: the store.
        out: folder for the files; made if it is not there.
        ids: objects to write; none: all that are fitted.
        wanted: what to make of each field.
        sources: folder that holds the sources; None: where they were when they were fitted.
        compare: measure the distance to the source where it is there, with its content unchanged.
        sheet: PNG file for pictures of the worst, source beside result.
        origin: what the fields are read from: their own weights, or embeddings and a decoder.
        encoder: whose embeddings, as `open_encoder` takes it; None: the newest.
        jobs: worker processes; 0 for one a core.
        ray: cluster that works instead, as `open_cluster` takes it; its workers write the files.
        share: rows that this process does, of several that share them.
        renderer: of radiance, as `core.composite` names them.
        device: "cpu", "cuda", "cuda:N" or "auto"; on CUDA this process does all the work, or the
            cluster's GPUs.
        progress: told about each object.

    Raises:
        StoreError: an id is unknown, not fitted, or has no embedding.
        DeviceError: the device is not there.
        UsageFault: the file type does not fit what is to be made, or an embedding is to be moved.
    """
    progress = progress or Silent()
    store = open_store(path)
    wanted = _completed(wanted or Wanted(), store.field)
    with open_cluster(ray, device=device, jobs=jobs) as cluster:
        target = open_device("cpu") if cluster else open_device(device)
        fields = open_fields(
            *(store, origin),
            encoder=encoder,
            move=wanted.move,
            renderer=renderer,
            device=str(target),
        )
        rows = store.find(ids) if ids else fields.rows
        fields.require(rows)
        rows = rows if share is None else rows[share.owns(rows)]
        if cluster:  # its workers run in another folder
            out = out.absolute()
        out.mkdir(parents=True, exist_ok=True)
        roots = [] if not compare else [sources] if sources else roots_of(store)
        roots = [root.absolute() for root in roots]
        chores = _chores(store, rows, out, wanted, roots, fields)
        # fields that are on a GPU are not handed to other processes
        workers = 1 if target.type == "cuda" else workers_for(len(rows), jobs, cluster)
        names, done = store.column("id"), list[Rebuilt | Filmed]()
        make, draw = (shoot, compared) if wanted.form is Form.pictures else (rebuild, pictured)
        if cluster:
            make, draw = (partial(_on, cluster.device, work) for work in (make, draw))
        with progress:
            progress.start(len(rows), "reconstruct")
            results = spread(make, chores, workers=workers)
            for row, result in zip(rows, results, strict=True):
                progress.advance(1, names[row])
                lost = Rebuilt(names[row], None, problem="its worker process died (out of memory?)")
                done.append(lost if isinstance(result, WorkerDied) else result)
                yield done[-1]
            if sheet is not None:
                worst = sorted(done, key=_goodness)[:PICTURED]
                picked = store.find([r.id for r in worst])
                again = _chores(store, picked, out, wanted, roots, fields)
                progress.start(len(worst), "pictures")
                pictures = spread(draw, again, workers=workers)
                tiles = []
                for result, drawn in zip(worst, pictures, strict=True):
                    progress.advance(1, result.id)
                    if not isinstance(drawn, WorkerDied):
                        tiles.append(Tile(drawn, _caption(result)))
                write_sheet(tiles, sheet)


def _on(device: torch.device, work: Callable[[Any], Any], chore: Chore | Shoot) -> Any:
    """Do a chore in a worker, with its field on the worker's device."""
    chore.field.to(device)
    return work(chore)


def parse_moves(texts: Sequence[str]) -> Affine | None:
    """Combine moves as they are typed, in their order; None if there is none."""
    move: Affine | None = None
    for text in texts:
        step = parse_transform(text)
        move = step if move is None else move.then(step)
    return move


def _completed(wanted: Wanted, kind: str) -> Wanted:
    form = wanted.form or NATURAL[kind]
    if form is Form.pictures and kind != "nerf":
        raise UsageFault(
            f"a field of kind {kind} has no colours to take pictures of",
            hint="`--sheet PNG` draws the worst; `nf2vec view` shows them all",
        )
    if form is not Form.pictures and wanted.film is not None:
        raise UsageFault(
            f"cameras, sizes and backgrounds are of pictures, not of a {form}",
            hint="`--as pictures`" if kind == "nerf" else "leave them out",
        )
    suffix = wanted.suffix or FORMATS[form][0]
    if suffix not in FORMATS[form]:
        raise UsageFault(
            f"{suffix!r} is no file type of a {form}",
            hint=f"`--format {FORMATS[form][0]}`; there are {', '.join(FORMATS[form])}",
        )
    if form is Form.pictures:
        check_film(wanted.film or Film(), suffix)
    return replace(wanted, form=form, suffix=suffix)


def _chores(
    store: Store,
    rows: NDArray[np.int64],
    out: Path,
    wanted: Wanted,
    roots: Sequence[Path],
    fields: Fields,
) -> Iterator[Chore | Shoot]:
    assert wanted.suffix is not None  # _completed sees to it
    if wanted.form is Form.pictures:
        yield from shoots(store, rows, out, wanted.suffix, wanted.film or Film(), roots, fields)
        return
    names = ("id", "source", "transform", "hash", "copy", "seed", "cells")
    column: dict[str, Any] = {name: store.column(name) for name in names}
    config = fit_config(store)
    form = wanted.form
    assert form is not None  # _completed sees to it
    for row in rows:
        fitted_cells = int(column["cells"][row]) or config.voxels
        natural = fitted_cells if form is Form.voxels else MESH_RESOLUTION
        yield Chore(
            id=column["id"][row],
            field=fields.at(int(row)),
            kind=store.field,
            transform=column["transform"][row],
            copy=(int(column["copy"][row]), int(column["seed"][row])),
            source=sources_of(roots, column["source"][row]),
            digest=np.asarray(column["hash"][row]).tobytes(),
            file=file_of(out, column["id"][row], f".{wanted.suffix}"),
            form=form,
            resolution=wanted.resolution or natural,
            config=config,
            wanted=wanted,
        )


def _goodness(result: Rebuilt | Filmed) -> float:
    """Order results from bad to good; one that is not compared with its source comes last."""
    if result.problem:
        return -1.0
    if isinstance(result, Filmed):
        return np.inf if result.psnr is None else result.psnr
    found = result.iou if result.iou is not None else result.f1
    return 2.0 if found is None else found


def _caption(result: Rebuilt | Filmed) -> tuple[str, ...]:
    told = [result.problem] if result.problem else []
    if isinstance(result, Filmed):
        told += [] if result.psnr is None else [f"psnr {result.psnr:.2f} dB"]
        return result.id, "  ".join(told)
    for name in ("chamfer", "f1", "f025", "iou"):
        value = getattr(result, name)
        if value is not None:
            told.append(f"{name} {value:.4f}" if name == "chamfer" else f"{name} {value:.1%}")
    return result.id, "  ".join(told)
