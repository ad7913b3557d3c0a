"""Turn fields back into meshes, in the user's own units and pose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import trimesh
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError, StoreError
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.discover import fingerprint
from nf2vec_cli.shapes.mesh import load_mesh
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.score import Truth, field_surface
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread


@dataclass(frozen=True)
class Rebuilt:
    """One object's mesh. chamfer, f1, f025: against the source, in unit space, if it is there.

    chamfer: mean distance, sample to surface, both ways; f1, f025: F-score at 1 % and 0.25 % of
    the unit sphere's radius. evaluated: share of the dense grid that was evaluated.
    """

    id: str
    file: str | None
    faces: int = 0
    chamfer: float | None = None
    f1: float | None = None
    f025: float | None = None
    evaluated: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _Chore:
    id: str
    theta: NDArray[np.float32]
    spec: NetworkSpec
    transform: NDArray[np.float64]
    source: tuple[Path, ...]  # where it may be
    digest: bytes
    file: Path
    resolution: int


def reconstruct(
    path: Path,
    out: Path,
    *,
    ids: Sequence[str] = (),
    resolution: int = 128,
    suffix: str = "ply",
    sources: Path | None = None,
    compare: bool = True,
    jobs: int = 0,
    progress: Progress | None = None,
) -> Iterator[Rebuilt]:
    """Write one mesh for each fitted object, at OUT/ID.suffix, and compare it with its source.

    Args:
        path: the store.
        out: folder for the meshes; made if it is not there.
        ids: objects to write; none: all that are fitted.
        resolution: marching cubes points along each axis of the box [-1, 1]^3.
        suffix: file type: ply, obj, stl, off or glb.
        sources: folder that holds the sources; None: where they were when they were fitted.
        compare: measure the distance to the source where it is there, with its content unchanged.
        jobs: worker processes; 0 for one a core.
        progress: told about each object.

    Raises:
        StoreError: an id is unknown, or not fitted.
    """
    progress = progress or Silent()
    store = open_store(path)
    rows = store.find(ids) if ids else store.rows(Status.DONE)
    _all_fitted(store, rows)
    out.mkdir(parents=True, exist_ok=True)
    roots = () if not compare else (sources,) if sources else _roots(store)
    chores = _chores(store, rows, out, suffix, resolution, roots)
    workers = max(1, min(jobs or available_cores(), len(rows)))
    names = store.column("id")
    with progress:
        progress.start(len(rows), "reconstruct")
        results = spread(partial(_rebuild), chores, workers=workers)
        for row, result in zip(rows, results, strict=True):
            name = names[row]
            progress.advance(1, name)
            if isinstance(result, WorkerDied):
                yield Rebuilt(name, None, problem="its worker process died (out of memory?)")
            else:
                yield result


def _all_fitted(store: Store, rows: NDArray[np.int64]) -> None:
    status = store.column("status")
    missing = [row for row in rows if status[row] != Status.DONE]
    if missing:
        name = store.column("id")[missing[0]]
        raise StoreError(
            f"{name!r} has no field: it is {Status(int(status[missing[0]])).name.lower()}",
            hint=f"`nf2vec info {store.path} --failed` lists what failed, with the reason",
        )
    if not len(rows):
        raise StoreError(
            f"{store.path} holds no fitted field",
            hint=f"run `nf2vec fit SHAPES --field {store.field} --store {store.path}` first",
        )


def _roots(store: Store) -> tuple[Path, ...]:
    """Folders that past runs read from, the latest first."""
    found = [
        root for run in reversed(store.runs()) for root in run.get("summary", {}).get("roots", ())
    ]
    return tuple(Path(root) for root in dict.fromkeys(found))


def _chores(
    store: Store,
    rows: NDArray[np.int64],
    out: Path,
    suffix: str,
    resolution: int,
    roots: Sequence[Path],
) -> Iterator[_Chore]:
    names, source = store.column("id"), store.column("source")
    transform, digest = store.column("transform"), store.column("hash")
    spec = NetworkSpec(**store.network)
    for row in rows:
        yield _Chore(
            id=names[row],
            theta=store.weights([row])[0],
            spec=spec,
            transform=transform[row],
            source=tuple(inside(root, source[row]) for root in roots),
            digest=np.asarray(digest[row]).tobytes(),
            file=inside(out, f"{names[row]}.{suffix}"),
            resolution=resolution,
        )


def inside(folder: Path, name: str) -> Path:
    """Join a name from a store to a folder; it must stay in there.

    Raises:
        StoreError: the name is absolute or climbs out.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise StoreError(f"{name!r} in the store is no path inside a folder")
    joined = folder.joinpath(*parts)
    if not joined.resolve().is_relative_to(folder.resolve()):
        raise StoreError(f"{name!r} leads out of {folder} by a link")
    return joined


def _rebuild(chore: _Chore) -> Rebuilt:
    surface = field_surface(chore.theta, chore.spec, chore.resolution)
    if not len(surface.faces):
        return Rebuilt(
            chore.id, None, evaluated=surface.evaluated, problem="the field has no zero surface"
        )
    centre, scale = chore.transform[:3], chore.transform[3]
    mesh = trimesh.Trimesh(surface.vertices * scale + centre, surface.faces, process=False)
    _write(mesh, chore.file)
    rebuilt = Rebuilt(
        chore.id, str(chore.file), faces=len(surface.faces), evaluated=surface.evaluated
    )
    source = _source(chore)
    if source is None:
        return rebuilt
    unit = Mesh((source.vertices - centre) / scale, source.faces, source.watertight, ())
    score = Truth.of(unit).score(surface)
    if score is None:
        return rebuilt
    return Rebuilt(
        chore.id,
        rebuilt.file,
        rebuilt.faces,
        score.chamfer,
        score.f1,
        score.f025,
        rebuilt.evaluated,
    )


def _source(chore: _Chore) -> Mesh | None:
    """Read the source if it is where it was, with the content that was fitted."""
    for path in chore.source:
        try:
            if path.is_file() and fingerprint(path)[0] == chore.digest:
                return load_mesh(path)
        except (OSError, InputError):
            continue
    return None


def _write(mesh: trimesh.Trimesh, file: Path) -> None:
    """Write under another name first, so that a killed run leaves no half mesh."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    data = mesh.export(file_type=file.suffix[1:])
    part.write_bytes(data if isinstance(data, bytes) else str(data).encode())
    part.replace(file)
