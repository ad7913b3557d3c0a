"""Labelled clouds of a store's objects: matched by name, in unit space, with parts numbered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.metrics import nearest_distance
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.part_files import Names, PartFiles, PartRef
from nf2vec_cli.shapes.unit import into_unit, onto_unit
from nf2vec_cli.shapes.voxels import Voxels
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.embedded import SPLITS, labels_hint, splits_of
from nf2vec_cli.tasks.fit_object import copied

ASKED, AWAY = (
    256,
    0.1,
)  # points of a cloud, and their mean distance to the surface, that misplace it
NO_FACES = np.empty((0, 3), np.int64)


@dataclass(frozen=True)
class Part:
    """A part of a class: its label in the data, and its name."""

    class_name: str
    label: int
    name: str


@dataclass(frozen=True)
class Parts:
    """Classes in alphabetical order, and all their parts: the outputs of a head.

    folders: the classes as the files name them, such as synsets.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    parts: tuple[Part, ...]

    def known_as(self, name: str) -> str | None:
        """Find a class by its name or folder; None if there is none."""
        if name in self.classes:
            return name
        return self.classes[self.folders.index(name)] if name in self.folders else None

    @cached_property
    def of_class(self) -> dict[str, list[int]]:
        """List each class's parts, as places in `parts`: one after the other, by label."""
        return {
            name: [place for place, part in enumerate(self.parts) if part.class_name == name]
            for name in self.classes
        }

    def places(self, class_name: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn labels of a class's objects into places in `parts`."""
        allowed = self.of_class[class_name]
        known = np.array([self.parts[place].label for place in allowed])
        found: NDArray[np.int64] = allowed[0] + np.searchsorted(known, labels)
        return found

    def facts(self) -> dict[str, Any]:
        """Give plain values to keep."""
        return {
            "classes": list(self.classes),
            "folders": list(self.folders),
            "parts": [asdict(part) for part in self.parts],
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Parts:
        """Read what `facts` gave."""
        parts = tuple(Part(**part) for part in facts["parts"])
        return cls(tuple(facts["classes"]), tuple(facts["folders"]), parts)


@dataclass(frozen=True)
class PartSet:
    """N objects of a store with labelled points in unit space.

    labels [N]: place in `names.classes`. points: [M, 3] float32 each; truth: [M] each, places in
    `names.parts`. unmatched: labelled clouds that are no object of the store with an embedding.
    misplaced: objects whose labelled points are not on their surface; both are left out.
    """

    rows: Rows
    names: Parts
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    is_copy: NDArray[np.bool_]
    points: tuple[Floats, ...]
    truth: tuple[NDArray[np.int64], ...]
    unmatched: int
    misplaced: int

    def of(self, split: str) -> NDArray[np.int64]:
        """List the places of a split's objects; copies of other proportions only in train."""
        wanted = self.splits == split
        return np.flatnonzero(wanted if split == "train" else wanted & ~self.is_copy)

    def digest(self) -> str:
        """Name the labelled points and splits, for the key of what is made of them."""
        digest = sha256(repr((self.names, self.splits.tolist(), self.rows.tolist())).encode())
        for points, truth in zip(self.points, self.truth, strict=True):
            digest.update(points.tobytes())
            digest.update(truth.tobytes())
        return digest.hexdigest()


def label_objects(store: Store, rows: Rows, files: PartFiles, *, space: str) -> PartSet:
    """Bring labelled clouds together with the objects of a store.

    A cloud belongs to the object whose id has its name as a part, and whose class or folder is the
    cloud's where several have it. The data's splits hold; an object that has none there keeps the
    store's. Copies of other proportions get their object's labels, their points scaled alike.

    Args:
        store: the store.
        rows: objects that count.
        files: labelled clouds.
        space: "source" or "own", as the setting of that name.

    Raises:
        InputError: no cloud is an object of the store, none lies on its object, one cannot be read,
            a split is empty, or a class has no object in train.
    """
    refs, owners = _matched(store, rows, files.refs)
    if not refs:
        names = store.column("id")
        there = f"such as {names[rows[0]]!r}" if len(rows) else "none"
        raise InputError(
            f"none of the {len(files.refs)} labelled clouds of {files.folder}, such as "
            f"{files.refs[0].name!r}, is an object of {store.path} with an embedding ({there})",
            hint=f"fit the shapes that the clouds are of, and `nf2vec encode {store.path}`",
        )
    splits, unit_space = splits_of(store), _UnitSpace(store, space)
    found: list[tuple[int, PartRef, Floats, NDArray[np.int64]]] = []
    misplaced = 0
    for ref, cloud, group in zip(refs, files.read(refs), owners, strict=True):
        for row in group:
            points = unit_space.place(cloud.points, row, group[0])
            if _on_surface(store, row, points):
                found.append((row, ref, points, cloud.labels))
            else:
                misplaced += 1
    if not found:
        raise InputError(
            f"the labelled points of {files.folder} are not on the surfaces of {store.path}: they "
            "are in other units, or turned",
            hint=f"`nf2vec segment {store.path} --parts {files.folder} --set space=own` moves each "
            "cloud into the unit sphere by itself",
        )
    found.sort(key=lambda one: one[0])
    named = _numbered([(ref, labels) for _, ref, _, labels in found], files.known)
    rows = np.array([row for row, *_ in found], np.int64)
    chosen = PartSet(
        rows=rows,
        names=named,
        labels=np.array([named.classes.index(ref.class_name) for _, ref, *_ in found], np.int64),
        splits=np.array([ref.split or splits[row] for row, ref, *_ in found], "U5"),
        is_copy=np.asarray(store.column("copy"))[rows] > 0,
        points=tuple(points for _, _, points, _ in found),
        truth=tuple(named.places(ref.class_name, labels) for _, ref, _, labels in found),
        unmatched=len(files.refs) - len(refs),
        misplaced=misplaced,
    )
    for split in SPLITS:
        if not len(chosen.of(split)):
            raise InputError(
                f"{files.folder} labels no object of {store.path} in split {split}: there are "
                f"{dict(Counter(chosen.splits.tolist()))}",
                hint=f"label more of them, or {labels_hint(store, 'splits')}",
            )
    learnt = set(chosen.labels[chosen.of("train")].tolist())
    lone = [name for place, name in enumerate(named.classes) if place not in learnt]
    if lone:
        raise InputError(
            f"{files.folder} labels no object of class {', '.join(lone)} in split train",
            hint=f"label more of them, or {labels_hint(store, 'splits')}",
        )
    return chosen


def _matched(
    store: Store, rows: Rows, refs: Sequence[PartRef]
) -> tuple[list[PartRef], list[list[int]]]:
    """Give the clouds that belong to one object, with its row and those of its copies."""
    ids, classes = store.column("id"), store.column("class")
    parents, copies = store.column("parent"), store.column("copy")
    named: dict[str, list[int]] = {}
    copied_from: dict[str, list[int]] = {}
    for row in rows.tolist():
        if copies[row]:
            copied_from.setdefault(parents[row], []).append(row)
        else:
            for part in set(ids[row].split("/")):
                named.setdefault(part, []).append(row)
    often = Counter(ref.name for ref in refs)
    kept: list[PartRef] = []
    owners: list[list[int]] = []
    for ref in refs:
        there = named.get(ref.name, [])
        told = {ref.class_name, ref.folder}
        same = [row for row in there if {classes[row], *ids[row].split("/")} & told]
        if not same and often[ref.name] == 1:
            same = there
        if len(same) == 1:
            kept.append(ref)
            owners.append([same[0], *copied_from.get(ids[same[0]], [])])
    return kept, owners


def _numbered(labelled: Sequence[tuple[PartRef, NDArray[np.int64]]], known: Names) -> Parts:
    """Number the parts of all classes that are there; those unknown to the data are what occurs."""
    seen: dict[str, dict[int, str]] = {}
    for ref, labels in labelled:
        texts = seen.setdefault(ref.class_name, dict(known.get(ref.class_name, {})))
        for label in np.unique(labels).tolist():
            texts.setdefault(label, str(label))
    classes = tuple(sorted(seen))
    parts = tuple(
        Part(name, label, text) for name in classes for label, text in sorted(seen[name].items())
    )
    folders = {ref.class_name: ref.folder for ref, _ in labelled}
    return Parts(classes, tuple(folders[name] for name in classes), parts)


class _UnitSpace:
    """Moves labelled points as their objects' shapes were moved when they were fitted."""

    def __init__(self, store: Store, space: str) -> None:
        self.own = space == "own"
        self.transforms, self.faces = store.column("transform"), store.column("faces")
        self.copies, self.seeds = store.column("copy"), store.column("seed")

    def place(self, points: NDArray[np.float64], row: int, original: int) -> Floats:
        """Give the points of a row's object, which may be a copy of that of row `original`."""
        if self.own:
            unit = into_unit(Cloud(points))[0]
            assert isinstance(unit, Cloud)
            points = unit.points * self.transforms[original][3] + self.transforms[original][:3]
        # a mesh is copied about the origin and a cloud about its middle, so the points go as it did
        shape: Shape = Mesh(points, NO_FACES, False) if self.faces[row] else Cloud(points)
        shape = copied(shape, int(self.copies[row]), int(self.seeds[row]))
        moved = onto_unit(shape, self.transforms[row][:3], float(self.transforms[row][3]))
        assert not isinstance(moved, Voxels)
        found = moved.vertices if isinstance(moved, Mesh) else moved.points
        return found.astype(np.float32)


def _on_surface(store: Store, row: int, points: Floats) -> bool:
    """Tell whether points lie where the object is; yes where nothing is known of its surface."""
    surface = store.surface([row])[0].astype(np.float64)
    if not surface.any():
        return True
    asked = points[np.linspace(0, len(points) - 1, min(ASKED, len(points))).astype(int)]
    return float(nearest_distance(asked.astype(np.float64), surface).mean()) < AWAY
