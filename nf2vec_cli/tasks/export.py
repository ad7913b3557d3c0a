"""Hand on what a store holds in files that others read: fields, embeddings, encoder, classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.errors import Nf2vecError, StoreError, UsageFault
from nf2vec_cli.foreign.hdf5 import SUFFIXES as H5
from nf2vec_cli.foreign.hdf5 import h5py_module
from nf2vec_cli.foreign.onnx_graph import onnx_module
from nf2vec_cli.foreign.write_field import SUFFIX, WRITERS, Outgoing
from nf2vec_cli.foreign.write_folder import folder_files
from nf2vec_cli.foreign.write_table import Table, write_table
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.write import write_bytes
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.radiance import read_grids
from nf2vec_cli.store.schema import CAMERA_NUMBERS, CAMERAS, Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.export_module import write_classifier, write_encoder_file
from nf2vec_cli.tasks.fit_object import reason_of
from nf2vec_cli.tasks.open_fields import require_fitted
from nf2vec_cli.tasks.sources import file_of, inside

FORMS = {
    "fields": ("safetensors", "hdf5", "npz", "onnx", "nerf-folder"),
    "embeddings": ("safetensors", "hdf5", "npz"),
    "encoder": ("safetensors", "onnx"),
    "classifier": ("safetensors", "onnx"),
}
TABLES = ("safetensors", "hdf5", "npz")  # what many fields as one file can be
READ = 256  # rows that are read at once


@dataclass(frozen=True)
class Exported:
    """A file that was written, or would be. id: of the object; of one file for all, what it is."""

    id: str
    file: str | None
    objects: int = 1
    bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Order:
    """What to write. ids: objects; none: all. key: of an encoder or head; None: the newest.

    form: file type; empty: what the suffix of a file says, else safetensors.
    """

    what: str = "fields"
    form: str = ""
    ids: tuple[str, ...] = ()
    one_file: bool = False
    key: str | None = None
    force: bool = False
    dry_run: bool = False


def export(
    path: Place, out: Path, order: Order | None = None, *, progress: Progress | None = None
) -> Iterator[Exported]:
    """Write what was ordered: each field to a file of its own below OUT, or all to the file OUT.

    Args:
        path: the store.
        out: folder of OUT/ID.suffix (of HDF5 OUT/SPLIT/NUMBER.h5, as the authors have it), or file.
        order: what to write.
        progress: told about each object.

    Raises:
        StoreError: it lacks what is to be written, or an id leads out of OUT.
        UsageFault: there is no such file type of this, a library is missing, or a file is there.
    """
    order = order or Order()
    order = replace(order, form=order.form or _form(out, order))
    store = open_store(path)
    _check(store, order)
    if order.what == "fields" and not order.one_file:
        return _fields(store, out, order, progress or Silent())
    return iter([_alone(store, out, order, progress or Silent())])


def _form(out: Path, order: Order) -> str:
    """Tell a file type from a file's suffix; a folder's name says nothing."""
    if order.what == "fields" and not order.one_file:
        return "safetensors"
    known = {suffix: form for form, suffix in SUFFIX.items()} | dict.fromkeys(H5, "hdf5")
    return known.get(out.suffix.lower(), "safetensors")


def _check(store: Store, order: Order) -> None:
    forms = FORMS[order.what]
    if order.form not in forms:
        raise UsageFault(
            f"{order.what} are not written as {order.form}", hint=f"there are {', '.join(forms)}"
        )
    if order.what == "fields" and order.one_file and order.form not in TABLES:
        raise UsageFault(f"{order.form} holds one field a file", hint="leave out `--one-file`")
    if order.what == "fields" and not order.one_file and order.form == "hdf5":
        _check_sirens(store)
    if order.form == "nerf-folder" and store.field != "nerf":
        raise UsageFault(f"a folder of this kind holds radiance, and {store.path} {store.field}")
    if order.ids and order.what in ("encoder", "classifier"):
        raise UsageFault(f"ids have no part in the {order.what}", hint="leave out `--ids`")
    if order.form == "hdf5":
        h5py_module()
    elif order.form == "onnx":
        onnx_module()


def _check_sirens(store: Store) -> None:
    """See that the authors' HDF5, which holds numbers alone, is read as what the fields are."""
    if store.field == "nerf":
        raise UsageFault(
            "the authors keep radiance in folders, not in HDF5", hint="`--format nerf-folder`"
        )
    if NetworkSpec(**store.network).activation != "sine":
        raise UsageFault(
            f"the authors' HDF5 files hold SIRENs, and {store.path} networks of ReLU units",
            hint="`--format safetensors` names the network beside the weights",
        )


def _fields(store: Store, out: Path, order: Order, progress: Progress) -> Iterator[Exported]:
    rows = _rows(store, order)
    places = _places(store, rows, out, order.form)
    taken = [place for place in places if isinstance(place, Path) and place.exists()]
    if taken and not order.force:
        raise UsageFault(f"{taken[0]} is there already", hint="`--force` replaces what is there")
    names = store.column("id")
    if order.dry_run:
        found = zip(rows, places, strict=True)
        return (_shown(names[row], place) for row, place in found)
    return _written(store, rows, places, order, progress)


def _shown(name: str, place: Path | StoreError) -> Exported:
    if isinstance(place, Path):
        return Exported(name, str(place))
    return Exported(name, None, problem=str(place))


def _written(
    store: Store, rows: Rows, places: list[Path | StoreError], order: Order, progress: Progress
) -> Iterator[Exported]:
    known = _Known(store)
    with progress:
        progress.start(len(rows), "export")
        for row, place in zip(rows, places, strict=True):
            name = known.column["id"][row]
            progress.advance(1, name)
            try:
                if isinstance(place, StoreError):
                    raise place
                field = known.outgoing(int(row))
                size = _write_one(field, place, order.form)
            except (Nf2vecError, OSError) as error:
                progress.note(f"{name}: {reason_of(error)}")
                yield Exported(name, None, problem=reason_of(error))
                continue
            yield Exported(name, str(place), bytes=size)


def _write_one(field: Outgoing, place: Path, form: str) -> int:
    if form == "nerf-folder":
        files = {place / name: data for name, data in folder_files(field).items()}
    else:
        files = {place: WRITERS[form](field)}
    for file, data in files.items():
        write_bytes(data, file)
    return sum(len(data) for data in files.values())


def _rows(store: Store, order: Order) -> Rows:
    rows = store.find(order.ids) if order.ids else store.rows(Status.DONE)
    require_fitted(store, rows)
    return rows


def _places(store: Store, rows: Rows, out: Path, form: str) -> list[Path | StoreError]:
    """Name the files; the authors number theirs within each split, which may be no folder."""
    if form == "hdf5":
        splits, counts = store.column("split"), dict[str, int]()
        found: list[Path | StoreError] = []
        for row in rows:
            split = splits[row] or "all"
            try:
                found.append(inside(out, f"{split}/{counts.get(split, 0)}{SUFFIX[form]}"))
            except StoreError as error:
                found.append(error)
            counts[split] = counts.get(split, 0) + 1
        return found
    names, suffix = store.column("id"), SUFFIX.get(form, "")
    return [file_of(out, names[row], suffix) for row in rows]


class _Known:
    """The columns of a store, and one field after the other with what is known of it."""

    def __init__(self, store: Store) -> None:
        self.store, self.spec = store, NetworkSpec(**store.network)
        self.column: dict[str, Any] = {
            name: store.column(name) for name in ("id", "class", "split", "transform")
        }
        classes = {name for name in self.column["class"] if name}
        self.numbers = {name: number for number, name in enumerate(sorted(classes))}

    def outgoing(self, row: int) -> Outgoing:
        """Read a field and what goes with it."""
        name, surface = self.column["class"][row], self.store.surface([row])[0]
        lit = self.store.field == "nerf"
        cameras = self.store.packed(CAMERAS, [row]).reshape(-1, CAMERA_NUMBERS) if lit else None
        return Outgoing(
            id=self.column["id"][row],
            class_name=name,
            class_number=self.numbers.get(name, -1),
            split=self.column["split"][row],
            kind=self.store.field,
            theta=np.ascontiguousarray(self.store.weights([row])[0]),
            spec=self.spec,
            init_hash=self.store.init_hash,
            transform=tuple(self.column["transform"][row].tolist()),
            surface=surface if surface.any() else None,
            grid=read_grids(self.store, [row])[0] if lit else None,
            cameras=None if cameras is None else cameras[cameras[:, 15] > 0],
        )


def _alone(store: Store, out: Path, order: Order, progress: Progress) -> Exported:
    """Write one file for all."""
    if out.is_dir():
        raise UsageFault(f"{out} is a folder: the {order.what} go to a file")
    if out.exists() and not order.force:
        raise UsageFault(f"{out} is there already", hint="`--force` replaces it")
    if order.what == "encoder":
        count, name = 1, write_encoder_file(store, out, order.form, order.key, dry=order.dry_run)
    elif order.what == "classifier":
        count, name = 1, write_classifier(store, out, order.form, order.key, dry=order.dry_run)
    else:
        table, name = _table(store, order, progress), order.what
        count = table.shape[0]
        if not order.dry_run:
            with progress:
                progress.start(count, "export")
                write_table(table, out, order.form)
    return Exported(name, str(out), count, None if order.dry_run else out.stat().st_size)


def _table(store: Store, order: Order, progress: Progress) -> Table:
    facts: dict[str, Any] = {"field": store.field, "init_hash": store.init_hash}
    if order.what == "embeddings":
        kept = open_embeddings(store, order.key)
        rows = _asked(store, order.ids, kept.current())
        width, read, name = kept.size, kept.read, "embeddings"
        facts |= {"encoder": kept.key}
        arrays = {}
    else:
        rows = _rows(store, order)
        width, read, name = len(store.init), store.weights, "params"
        facts |= {"network": store.network}
        arrays = {"init": store.init, "transform": store.column("transform")[rows]}

    def parts() -> Iterator[Floats]:
        for start in range(0, len(rows), READ):
            some = rows[start : start + READ]
            yield read(some)
            progress.advance(len(some))

    columns: dict[str, Sequence[str]] = {
        "ids": store.column("id"),
        "classes": store.column("class"),
        "splits": store.column("split"),
    }
    texts = {key: [column[row] for row in rows] for key, column in columns.items()}
    return Table(name, (len(rows), width), parts, arrays, texts, facts)


def _asked(store: Store, ids: tuple[str, ...], there: Rows) -> Rows:
    if not ids:
        return there
    rows = store.find(ids)
    missing = [name for name, row in zip(ids, rows, strict=True) if row not in there]
    if missing:
        raise StoreError(
            f"{missing[0]!r} has no embedding", hint=f"run `nf2vec encode {store.path}` first"
        )
    return rows
