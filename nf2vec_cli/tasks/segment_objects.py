"""The parts of single objects: at their labelled points, or at points drawn from their fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.metrics import shape_part_iou
from nf2vec_cli.models.segmenter import Segmenter
from nf2vec_cli.progress import Progress
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.write import write_parts
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.open_fields import open_each
from nf2vec_cli.tasks.part_labels import Parts, PartSet
from nf2vec_cli.tasks.part_lesson import tell_parts
from nf2vec_cli.tasks.rebuild import Form, Shown, build
from nf2vec_cli.tasks.reconstruct import MESH_RESOLUTION
from nf2vec_cli.tasks.sources import file_of
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread


@dataclass(frozen=True)
class SegmentedObject:
    """One object's parts. iou: mean over its class's parts, None where it has no labels.

    split: of its labels: what was learned from (train), chosen by (val), or neither (test).
    shares: fraction of the points that each part has, by name.
    """

    id: str
    class_name: str
    split: str | None
    iou: float | None
    points: int = 0
    shares: dict[str, float] | None = None
    file: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Asked:
    """Rows to tell the parts of, folder for files, points of each field, worker processes."""

    rows: Rows
    out: Path | None
    points: int | None
    jobs: int


@dataclass(frozen=True)
class _Named:
    """An object that is asked. place: in the labelled objects; draws: points of its field."""

    row: int
    id: str
    class_name: str
    split: str | None
    place: int | None
    draws: bool
    problem: str | None


@dataclass(frozen=True)
class _Draw:
    field: Shown
    kind: str
    points: int


def segment_objects(
    store: Store,
    head: Segmenter,
    names: Parts,
    embeddings: Embeddings,
    objects: PartSet | None,
    asked: Asked,
    progress: Progress,
) -> Iterator[SegmentedObject]:
    """Tell the parts of objects, and write clouds coloured by them if that is wanted.

    Paper, Fig. 13: fields are continuous, so any number of points can be drawn and segmented.
    """
    named = _named(store, names, embeddings, objects, asked)
    drawing = [one for one in named if one.draws]
    workers = max(1, min(asked.jobs or available_cores(), len(drawing)))
    chores = _draws(store, drawing, embeddings.key, asked.points or SURFACE_POINTS)
    drawn = spread(_draw, chores, workers=workers)
    z = embeddings.read(asked.rows)
    transforms = store.column("transform")
    progress.start(len(named), "segment")
    for one, embedding in zip(named, z, strict=True):
        progress.advance(1, one.id)
        points: Floats | WorkerDied | None = next(drawn) if one.draws else None
        problem = one.problem or _lack(points)
        if problem is not None or isinstance(points, WorkerDied):
            yield SegmentedObject(one.id, one.class_name, one.split, None, problem=problem)
            continue
        label, allowed = names.classes.index(one.class_name), names.of_class[one.class_name]
        code, iou = torch.from_numpy(embedding), None
        found = np.empty(0, np.int64)
        if objects is not None and one.place is not None:
            at = objects.points[one.place]
            found = tell_parts(head, code, label, at, allowed)
            iou = shape_part_iou(objects.truth[one.place], found, allowed)
            points = at if points is None else points
        assert points is not None  # without labels they are drawn
        if one.draws:
            found = tell_parts(head, code, label, points, allowed)
        within = np.searchsorted(allowed, found)
        told = [names.parts[place].name for place in allowed]
        file = None
        if asked.out is not None:
            file = file_of(asked.out, one.id, ".ply")
            centre, scale = transforms[one.row][:3], transforms[one.row][3]
            write_parts(points * scale + centre, within, told, file)
        shares = np.bincount(within, minlength=len(told)) / len(within)
        yield SegmentedObject(
            one.id,
            one.class_name,
            one.split,
            iou,
            len(points),
            dict(zip(told, shares.tolist(), strict=True)),
            None if file is None else str(file),
        )


def _named(
    store: Store, names: Parts, embeddings: Embeddings, objects: PartSet | None, asked: Asked
) -> list[_Named]:
    """Say of each object what class it is of, whether its points are drawn, and what it lacks."""
    ids, classes = store.column("id"), store.column("class")
    place = {} if objects is None else {int(row): n for n, row in enumerate(objects.rows)}
    current = set(embeddings.current().tolist())
    found = []
    for row in asked.rows.tolist():
        at, split, problem = place.get(row), None, None
        name = names.known_as(classes[row])
        if at is not None and objects is not None:
            name, split = names.classes[objects.labels[at]], str(objects.splits[at])
        if row not in current:
            problem = f"it has no embedding by encoder {embeddings.key!r}"
        elif name is None:
            known = ", ".join(names.classes)
            problem = f"its class {classes[row]!r} is none that the head knows: {known}"
        draws = problem is None and (at is None or asked.points is not None)
        found.append(_Named(row, ids[row], name or classes[row], split, at, draws, problem))
    return found


def _draws(store: Store, named: list[_Named], encoder: str, points: int) -> Iterator[_Draw]:
    if named:
        field_at = open_each(store, encoder)
        for one in named:
            yield _Draw(field_at(one.row), store.field, points)


def _draw(job: _Draw) -> Floats:
    """Draw points of a field's surface, in unit space. Runs in a worker."""
    cloud = build(
        job.field, job.kind, Form.cloud, resolution=MESH_RESOLUTION, points=job.points
    ).shape
    assert isinstance(cloud, Cloud)
    return cloud.points.astype(np.float32)


def _lack(points: Floats | WorkerDied | None) -> str | None:
    if isinstance(points, WorkerDied):
        return "its worker process died (out of memory?)"
    if points is not None and not len(points):
        return "nothing of the field is left to draw points from"
    return None
