"""One field from a file from elsewhere to what a store keeps of it. Runs in a worker."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nf2vec_cli.config import SURFACE_POINTS, Recipe
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError, Nf2vecError
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.fields.pool import Pool, in_order
from nf2vec_cli.foreign import LayoutName
from nf2vec_cli.foreign.found import Found, checked
from nf2vec_cli.foreign.layout import reader_of
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.shapes.clean import clean
from nf2vec_cli.shapes.cloud import cloud_of
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.load import UNFIT, Shape
from nf2vec_cli.store.codec import Floats, roundtrip
from nf2vec_cli.store.radiance import Cameras, pack_cameras, pack_grid
from nf2vec_cli.store.schema import CAMERAS, GRID
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.fit_object import MEASURED, UNKNOWN, Failed, Fitted, reason_of
from nf2vec_cli.tasks.optimise import object_seed
from nf2vec_cli.tasks.radiance_cloud import Lens, radiance_cloud
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.rebuild import Form, build

log = logging.getLogger(__name__)
POOL = 20_000  # query points on which a field is compared with the shape that came with it
NOTHING: dict[str, Any] = {  # is known of a field that came without its shape
    "watertight": UNKNOWN,
    "faces": 0,
    "doubt": 0.0,
    "disagreement": float("nan"),
    "sign": "",
    "cells": 0,
    "error": float("nan"),
    "message": "",
}
SIDE = 64  # grid points along an axis, where a field has to say itself where its surface is


@dataclass(frozen=True)
class ImportJob:
    """One field to read: where it is, how it is laid out, and what the store expects."""

    ref: ShapeRef
    layout: LayoutName
    net: ImportConfig
    params: str
    kind: str
    spec: NetworkSpec
    config: FitConfig
    init_hash: str
    labelled: bool = False  # whether its labels were given, and stand above what the file says


def import_object(job: ImportJob, init: Floats) -> Fitted | Failed:
    """Read one field and what came with it; one that cannot be used comes back as Failed."""
    started = time.process_time()
    columns: dict[str, Any] = {}
    try:
        digest, size, mtime = _fingerprint(job.ref.path, job.kind, job.ref.path.stat().st_mtime_ns)
        columns |= {"hash": digest, "size": size, "mtime": mtime}
        found = read_field(job)
        theta = checked(found.theta)
        columns |= {
            "seed": object_seed(job.ref.id, 0),
            "transform": np.array(found.transform),
            "steps": 0,
            **_labels(found, job),
            "key": _key(digest, job),
        }
        kept = roundtrip(theta, init, job.spec.blocks, job.config.codec, job.config.bits)
        if job.kind == "nerf":
            surface, told, beside = _radiance(found, kept, job)
        else:
            surface, told = _shape(found, kept, job)
            beside = {}
    except Exception as error:  # one object, however odd, must not end a run of thousands
        if not isinstance(error, Nf2vecError | OSError | MemoryError):
            log.exception("%r", str(job.ref.path))
        return Failed(reason_of(error), columns)
    columns |= told | {"seconds": time.process_time() - started}
    return Fitted(theta, surface, columns, None, beside)


@lru_cache(maxsize=4)
def _fingerprint(path: Path, kind: str, _changed: int) -> tuple[bytes, int, int]:
    """Name a file's content; once, of a file that holds thousands of objects."""
    return fingerprint(path, kind=kind)


def read_field(job: ImportJob) -> Found:
    """Read a field and see that it is what the store holds.

    Raises:
        InputError: it cannot be read, or has another architecture.
    """
    found = reader_of(job.layout, job.params)(job.ref, job.net)
    if found.kind and found.kind != job.kind:
        raise InputError(f"it is a field of kind {found.kind}, and the store holds {job.kind}")
    if found.spec != job.spec:
        raise InputError(f"its network is {told(found.spec)}, and the store's {told(job.spec)}")
    return found


def _labels(found: Found, job: ImportJob) -> dict[str, str]:
    given, said = job.ref, found
    if job.labelled:
        return {
            "class": given.class_name or said.class_name,
            "split": given.split or said.split,
        }
    return {"class": said.class_name or given.class_name, "split": said.split or given.split}


def told(spec: NetworkSpec) -> str:
    """Say an architecture in a few words."""
    sizes = f"{spec.inputs}-{spec.hidden}x{spec.layers}-{spec.outputs}"
    if spec.radiance:
        unit = "" if spec.density == 1 else f", densities per {spec.density:g}"
        return f"{sizes} {spec.activation}{'' if spec.biases else ', no biases'}{unit}"
    if spec.activation == "relu":
        return f"{sizes} relu{f', {spec.octaves} octaves' if spec.octaves else ''}"
    return f"{sizes} {spec.activation}, omega {spec.omega:g}"


def _key(digest: bytes, job: ImportJob) -> bytes:
    text = f"{digest.hex()}/{job.ref.source}/{job.kind}/{job.init_hash}/{job.net.model_dump_json()}"
    return sha256(text.encode()).digest()[:16]


def _shape(found: Found, kept: Floats, job: ImportJob) -> tuple[Floats, dict[str, Any]]:
    """Compare a field with its shape, if one came with it; else ask it where its surface is."""
    field = FieldFunction(kept, job.spec, job.kind)
    facts = dict(NOTHING)
    try:
        shape = _shape_of(found, facts)
        pool = None if shape is None else _pool(shape, job)
    except InputError as error:  # what is amiss with its shape is no fault of the field
        facts["message"] = f"its shape is left out: {error}"
        shape = pool = None
    if shape is None or pool is None:
        return (_asked(field, job) if found.cloud is None else _drawn(found.cloud, job)), facts
    facts |= {
        "doubt": pool.doubt,
        "disagreement": pool.disagreement,
        "sign": pool.sign,
        "cells": pool.cells,
        "error": _error(field, pool),
        "message": "; ".join([*shape.notes, *([pool.note] if pool.note else [])]),
    }
    return pool.surface, facts


def _pool(shape: Shape, job: ImportJob) -> Pool | None:
    """Prepare the query points of a shape as a fit does; None: the kind of field is of no such."""
    if (job.kind, type(shape)) in UNFIT:
        return None
    rng = np.random.default_rng([object_seed(job.ref.id, 0), 0])
    quick = job.config.model_copy(update={"pool": POOL, "recipe": Recipe.fast})
    return field_of(job.kind).prepare(shape, quick, rng=rng)


def _shape_of(found: Found, facts: dict[str, Any]) -> Shape | None:
    if found.mesh is not None:
        mesh = clean(*found.mesh)
        facts |= {"watertight": int(mesh.watertight), "faces": len(mesh.faces)}
        return mesh
    return None if found.cloud is None else cloud_of(found.cloud)


def _error(field: FieldFunction, pool: Pool) -> float:
    near = np.flatnonzero(pool.near)
    some = near[np.linspace(0, len(near) - 1, min(MEASURED, len(near))).astype(int)]
    return float(np.abs(field.values(pool.coords[some]) - pool.values[some]).mean())


def _asked(field: FieldFunction, job: ImportJob) -> Floats:
    found = build(field, job.kind, Form.cloud, resolution=SIDE, points=SURFACE_POINTS).shape
    points = getattr(found, "points", np.empty((0, 3)))
    return _drawn(points, job) if len(points) else np.zeros((SURFACE_POINTS, 3), np.float32)


def _drawn(points: NDArray[np.float64], job: ImportJob) -> Floats:  # -> [SURFACE_POINTS, 3]
    """Keep as many points as a store does, all of them where there are just so many."""
    rng = np.random.default_rng([object_seed(job.ref.id, 0), 2])
    if len(points) != SURFACE_POINTS:
        few = len(points) < SURFACE_POINTS
        points = points[rng.choice(len(points), SURFACE_POINTS, replace=few)]
    return in_order(points.clip(-1, 1))


def _radiance(
    found: Found, kept: Floats, job: ImportJob
) -> tuple[Floats, dict[str, Any], dict[str, NDArray[Any]]]:
    """Pack grid and cameras; the surface is where rays of the cameras end."""
    cells = job.config.grid
    grid = np.ones((cells,) * 3, bool) if found.grid is None else found.grid
    if grid.shape != (cells,) * 3:
        raise InputError(f"its grid has {len(grid)} cells along an axis, and the store's {cells}")
    message = "" if found.grid is not None else "it came without an occupancy grid"
    facts = NOTHING | {"psnr": float("nan"), "message": message}
    views = found.views
    if views is None:
        empty = np.zeros((0, 3, 4), np.float32)
        cameras = Cameras(empty, empty[:, 0, 0], np.zeros((0, 2), np.int64), np.zeros(0, bool))
    else:
        cameras = Cameras(views.poses, views.focal, views.size, views.held)
    beside: dict[str, NDArray[Any]] = {GRID: pack_grid(grid), CAMERAS: pack_cameras(cameras)}
    field = RadianceField(kept, job.spec, torch.from_numpy(grid), job.config.samples)
    if found.cloud is not None:
        return _drawn(found.cloud, job), facts, beside
    if len(cameras.focal):
        ends = radiance_cloud(field, Lens(cameras, job.config.samples), SURFACE_POINTS)
    else:
        shape = build(field, job.kind, Form.cloud, resolution=SIDE, points=SURFACE_POINTS).shape
        ends = getattr(shape, "points", None)
    if ends is None or not len(ends):
        return np.zeros((SURFACE_POINTS, 3), np.float32), facts, beside
    return _drawn(ends, job), facts, beside
