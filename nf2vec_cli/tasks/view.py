"""Make one page of a store to look at: a map of its embeddings, and the shape of each object."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config import Origin
from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedded import SPLITS, open_embeddings, splits_of
from nf2vec_cli.tasks.look import up_axis
from nf2vec_cli.tasks.open_fields import open_each, open_fields
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.rebuild import Shown
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread
from nf2vec_cli.tasks.view_map import NAMES, MapKind, Plane, nearest, plane_of, require_map
from nf2vec_cli.tasks.view_mesh import FACES, Glance, glance
from nf2vec_cli.tasks.view_page import page_of
from nf2vec_cli.tasks.view_radiance import LitGlance, lit_glance

# from 56 on whole blocks of the grid are left out: a third of the evaluations that 48 takes
RESOLUTION = 56
SHOWN = 6  # nearest neighbours of each object
NONE = "none"  # class or split of an object that has none
DIGITS = 4  # of a place on the map, whose sides are 1


@dataclass(frozen=True)
class Viewed:
    """A page. meshes: objects whose shape can be seen; the others are on the map alone."""

    file: str
    bytes: int
    objects: int
    meshes: int
    map: str
    encoder: str
    seconds: float


def view(
    path: Place,
    out: Path,
    *,
    kind: MapKind = MapKind.pca,
    encoder: str | None = None,
    origin: Origin | None = None,
    resolution: int = RESOLUTION,
    faces: int | None = None,
    seed: int = 0,
    jobs: int = 0,
    progress: Progress | None = None,
) -> Viewed:
    """Write a page that shows the embedded objects of a store, copies of other proportions aside.

    Args:
        path: the store.
        out: the file; another page there is replaced.
        kind: how the embeddings come into the plane.
        encoder: key of the encoder whose embeddings are shown; None: the newest.
        origin: what the shapes are made of; None: weights, and embeddings of objects without.
        resolution: grid points along each axis for a shape.
        faces: triangles that are left of each; None: 600, 800 of a udf's two sheets, 1,000 of
            radiance, whose vertices have the colours.
        seed: of t-SNE and UMAP.
        jobs: worker processes; 0 for one a core.
        progress: told about each object.

    Raises:
        StoreError: there are no embeddings, or no weights where they are asked for.
        UsageFault: `out` is a folder, or the map needs a package or more objects.
    """
    began = time.monotonic()
    progress = progress or Silent()
    line = f"nf2vec view {path} --out {out}"
    if out.is_dir():
        raise UsageFault(f"{out} is a folder", hint=f"`{line}/page.html`")
    require_map(kind, line)
    store = open_store(path)
    kept = open_embeddings(store, encoder)
    rows = _shown(store, kept)
    decoded = _decoded(store, rows, origin)
    chores = _chores(store, kept.key, rows, origin, resolution, faces or FACES[store.field])
    workers = max(1, min(jobs or available_cores(), len(rows)))
    names, shapes, pictures = store.column("id"), list[str](), list[str]()
    with progress:
        progress.start(None, f"map ({kind})")
        z = kept.read(rows)
        plane, neighbours = plane_of(z, kind, seed=seed, line=line), nearest(z, SHOWN)
        progress.start(len(rows), "shapes")
        for row, made in zip(rows, spread(_seen, chores, workers=workers), strict=True):
            progress.advance(1, names[row])
            if isinstance(made, WorkerDied):
                progress.note(f"{names[row]}: its worker process died (out of memory?)")
            mesh, picture = ("", "") if isinstance(made, WorkerDied) else made
            shapes.append(mesh)
            pictures.append(picture)
    data = _facts(store, kept, kind, decoded) | _objects(store, rows, plane, *neighbours)
    data |= {"pictures": pictures} if any(pictures) else {}
    page = page_of(f"{path.name} · nf2vec", data, shapes).encode()
    _write(page, out)
    return Viewed(
        file=str(out),
        bytes=len(page),
        objects=len(rows),
        meshes=sum(map(bool, shapes)),
        map=kind,
        encoder=kept.key,
        seconds=round(time.monotonic() - began, 2),
    )


def _shown(store: Store, kept: Embeddings) -> Rows:
    """List the rows on the map: a copy says nothing of the data, and crowds its neighbours."""
    rows = kept.current()
    found: Rows = rows[np.asarray(store.column("copy"))[rows] == 0]
    if not len(found):
        raise StoreError(
            f"{store.path} has embeddings of copies alone",
            hint=f"run `nf2vec encode {store.path}` to embed the objects themselves",
        )
    return found


def _decoded(store: Store, rows: Rows, origin: Origin | None) -> NDArray[np.bool_]:
    """Tell which shapes are made of embeddings: as asked, or those of rows that have no weights."""
    if origin is not None:
        return np.full(len(rows), origin is Origin.embeddings)
    found: NDArray[np.bool_] = store.column("status")[rows] == Status.EMBEDDED
    return found


def _seen(chore: Glance | LitGlance) -> tuple[str, str]:
    """Make an object's mesh and, of radiance, its picture. Runs in a worker."""
    return lit_glance(chore) if isinstance(chore, LitGlance) else (glance(chore), "")


def _chores(
    store: Store, key: str, rows: Rows, origin: Origin | None, resolution: int, faces: int
) -> Iterator[Glance | LitGlance]:
    """Open the fields at once, so that what is missing is told before any work, then give them."""
    if origin is None:
        field_at = open_each(store, key)
    else:
        fields = open_fields(store, origin, encoder=key if origin is Origin.embeddings else None)
        fields.require(rows)
        field_at = fields.at
    up = up_axis(store)

    def chore(field: Shown) -> Glance | LitGlance:
        if isinstance(field, Renderable):
            return LitGlance(field, resolution, faces, up)
        return Glance(field, store.field, resolution, faces)

    return (chore(field_at(int(row))) for row in rows)


def _facts(
    store: Store, kept: Embeddings, kind: MapKind, decoded: NDArray[np.bool_]
) -> dict[str, Any]:
    """Say what is on the page; the store by its name only, since pages are passed around."""
    origins = {Origin.embeddings if choice else Origin.weights for choice in decoded.tolist()}
    return {
        "store": store.path.name,
        "field": store.field,
        "encoder": kept.key,
        "mapName": NAMES[kind],
        "from": " and ".join(sorted(origins, reverse=True)),
    }


def _objects(
    store: Store, rows: Rows, plane: Plane, neighbours: NDArray[np.int64], cosines: Any
) -> dict[str, Any]:
    names = ("id", "class", "split", "error", "status", "psnr")
    column = {name: store.column(name) for name in names}
    # what has a field was split by `train` as splits_of says; what was generated never was
    alone = column["status"][rows] == Status.EMBEDDED
    splits = np.where(alone, np.asarray(column["split"])[rows], splits_of(store)[rows])
    errors = np.where(alone, np.nan, column["error"][rows])
    psnr = np.where(alone, np.nan, column["psnr"][rows])
    lit = {"psnr": _numbers(psnr)} if store.field == "nerf" else {}
    return lit | {
        "id": [str(column["id"][row]) for row in rows],
        **_coded("class", [column["class"][row] for row in rows]),
        **_coded("split", splits.tolist(), first=SPLITS),
        "error": _numbers(errors),
        "place": _squared(plane).round(DIGITS).tolist(),
        "neighbours": neighbours.tolist(),
        "cosines": np.asarray(cosines, np.float64).round(DIGITS).tolist(),
    }


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    return [float(f"{one:.4g}") if np.isfinite(one) else None for one in values]


def _coded(name: str, texts: Sequence[str], *, first: Sequence[str] = ()) -> dict[str, Any]:
    """Name each text once and give each object its place among them.

    Names in `first` keep their order and come before the others, the most frequent first.
    """
    named = [str(text) or NONE for text in texts]
    count = Counter(named)
    known = [one for one in first if one in count]
    rest = sorted(count.keys() - set(known), key=lambda one: (one == NONE, -count[one], one))
    place = {one: number for number, one in enumerate([*known, *rest])}
    return {f"{name}Names": list(place), name: [place[one] for one in named]}


def _squared(plane: Plane) -> Plane:
    """Bring places into [0, 1]^2 by one scale for both axes, in the middle, y upward."""
    low, high = plane.min(0), plane.max(0)
    extent = float((high - low).max()) or 1.0
    squared: Plane = (plane - (low + high) / 2) / extent + 0.5
    return squared


def _write(page: bytes, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    part.write_bytes(page)
    part.replace(out)
