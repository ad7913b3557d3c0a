"""Clouds whose points carry part labels: the ShapeNet-Part text layout, and NPZ files."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.discover import SPLITS
from nf2vec_cli.shapes.numbers import Array, read_arrays, read_table, shapes_of

SYNSETS, LISTS, PARTS = "synsetoffset2category.txt", "train_test_split", "parts.json"
COLUMNS = (4, 7)  # x y z label, and x y z nx ny nz label
MOST = 10_000  # a label beyond is no part
# ShapeNet-Part: first and last label of each category's parts
SHAPENET_PART = {
    "02691156": (0, 3),
    "02773838": (4, 5),
    "02954340": (6, 7),
    "02958343": (8, 11),
    "03001627": (12, 15),
    "03261776": (16, 18),
    "03467517": (19, 21),
    "03624134": (22, 23),
    "03636649": (24, 27),
    "03642806": (28, 29),
    "03790512": (30, 35),
    "03797390": (36, 37),
    "03948459": (38, 40),
    "04099429": (41, 43),
    "04225987": (44, 46),
    "04379243": (47, 49),
}
Names = Mapping[str, Mapping[int, str]]  # class -> label -> name of the part


@dataclass(frozen=True)
class PartRef:
    """A labelled cloud that can be read: its names, its split if it has one, and where it lies.

    folder: the class as the files name it, such as a synset. row: its place in a file of many.
    """

    name: str
    class_name: str
    folder: str
    split: str
    file: Path
    row: int | None = None


@dataclass(frozen=True)
class PartCloud:
    """Points [M, 3] float64 in the units of the file, and the label of each [M]."""

    points: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class PartFiles:
    """What a folder holds. known: all parts of a class, where the data say which there are."""

    folder: Path
    refs: tuple[PartRef, ...]
    known: Names

    def read(self, refs: Iterable[PartRef]) -> Iterator[PartCloud]:
        """Read clouds, in the order of `refs`; a file of many is read once if they are together.

        Raises:
            InputError: one cannot be read, or its labels do not fit its points or its class.
        """
        last: tuple[Path, dict[str, Array]] | None = None
        for ref in refs:
            if ref.file.suffix == ".npz":
                if last is None or last[0] != ref.file:
                    last = ref.file, _arrays(ref.file)
                points, labels = _of_npz(last[1], ref)
            else:
                points, labels = _of_text(ref)
            yield _checked(points, labels, ref, self.known.get(ref.class_name))


def find_parts(folder: Path) -> PartFiles:
    """Find labelled clouds in a folder, sorted by class and name.

    Either CLASS.npz (points [n, M, 3], labels [n, M], names [n], split [n] if there is one), or
    CLASS/NAME.txt and CLASS/SPLIT/NAME.txt, or .npz (points [M, 3], labels [M]) in the same places.
    Of ShapeNet-Part, the lists of splits and the names of categories are read; parts.json may
    name the parts.

    Raises:
        InputError: there are none, one is there twice, or a list cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of labelled clouds")
    categories, splits = _categories(folder), _lists(folder)
    refs = [ref for file in sorted(folder.glob("*.npz")) for ref in _many(file)]
    for file in sorted([*folder.glob("*/*.*"), *folder.glob("*/*/*.*")]):
        place = file.relative_to(folder).parts
        split = SPLITS.get(place[1].lower(), "") if len(place) == 3 else ""
        if file.suffix not in (".txt", ".npz") or (len(place) == 3 and not split):
            continue
        name = _text(file.name.removesuffix(file.suffix))
        split = splits.get(f"{place[0]}/{name}", split)
        refs.append(PartRef(name, categories.get(place[0], place[0]), place[0], split, file))
    if not refs:
        raise InputError(
            f"{folder} holds no labelled clouds: CLASS.npz with points, labels and names, or "
            "CLASS/NAME.txt with rows x y z label"
        )
    seen: dict[tuple[str, str], PartRef] = {}
    for ref in refs:
        other = seen.setdefault((ref.class_name, ref.name), ref)
        if other is not ref:
            raise InputError(f"{ref.name!r} of {ref.class_name!r} is in {ref.file} a second time")
    ordered = tuple(sorted(refs, key=lambda ref: (ref.class_name, ref.name)))
    return PartFiles(folder, ordered, _known(folder, ordered))


def _many(file: Path) -> Iterator[PartRef]:
    arrays = _arrays(file)
    for name in ("points", "labels", "names"):
        if name not in arrays:
            raise InputError(f"{file} has no array {name!r}, but {shapes_of(arrays)}")
    names, points, labels = arrays["names"], arrays["points"], arrays["labels"]
    if points.ndim != 3 or labels.shape != points.shape[:2] or names.shape != points.shape[:1]:
        raise InputError(
            f"{file} has points {points.shape}, labels {labels.shape} and names {names.shape}: "
            "[n, M, 3], [n, M] and [n] are needed"
        )
    splits = arrays.get("split", np.full(len(names), ""))
    if splits.shape != names.shape:
        raise InputError(f"{file} has {len(names)} names and split {splits.shape}")
    for row, (name, split) in enumerate(zip(names.tolist(), splits.tolist(), strict=True)):
        if split and str(split) not in SPLITS:
            raise InputError(f"{file}: split {split!r} of {name!r} is none of train, val, test")
        yield PartRef(_text(str(name)), file.stem, file.stem, SPLITS.get(str(split), ""), file, row)


def _arrays(file: Path) -> dict[str, Array]:
    try:
        return read_arrays(file.read_bytes(), ".npz")
    except (InputError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _of_npz(arrays: dict[str, Array], ref: PartRef) -> tuple[Array, Array]:
    if "points" not in arrays or "labels" not in arrays:
        raise InputError(f"{ref.file} has no points and labels, but {shapes_of(arrays)}")
    points, labels = arrays["points"], arrays["labels"]
    return (points, labels) if ref.row is None else (points[ref.row], labels[ref.row])


def _of_text(ref: PartRef) -> tuple[Array, Array]:
    try:
        table = read_table(ref.file.read_bytes())
    except (InputError, OSError) as error:
        raise InputError(f"{ref.file} cannot be read: {error}") from error
    if table.shape[1] not in COLUMNS:
        raise InputError(
            f"{ref.file} has rows of {table.shape[1]} numbers: x y z label, or x y z, a normal and "
            "the label, are read"
        )
    return table[:, :3], table[:, -1]


def _checked(
    points: Array, labels: Array, ref: PartRef, known: Mapping[int, str] | None
) -> PartCloud:
    told = f"{ref.file}: {ref.name!r}"
    for what, array in (("points", points), ("labels", labels)):
        if array.dtype.kind not in "fiu":
            raise InputError(f"{told} has {what} of type {array.dtype}, not numbers")
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"{told} has points {points.shape}: [M, 3] are needed")
    if labels.shape != points.shape[:1]:
        raise InputError(f"{told} has {len(points)} points and labels {labels.shape}")
    if not np.isfinite(points.astype(float)).all():
        raise InputError(f"{told} has points that are not finite")
    values = labels.astype(float)
    wrong = ~((values >= 0) & (values <= MOST) & (values == np.floor(values)))
    if known is not None:
        wrong |= ~np.isin(values, list(known))
    if wrong.any():
        there = ", ".join(map(str, known)) if known is not None else f"0 to {MOST}"
        raise InputError(
            f"{told} has label {values[wrong][0]:g}, which is no part of {ref.class_name!r}: "
            f"its parts are {there}"
        )
    return PartCloud(points.astype(np.float64), values.astype(np.int64))


def _categories(folder: Path) -> dict[str, str]:
    """Read the names of categories, by synset: rows of NAME SYNSET."""
    file = folder / SYNSETS
    if not file.is_file():
        return {}
    try:
        rows = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text") from error
    if any(len(row) != 2 for row in rows):
        raise InputError(f"{file} has rows other than NAME SYNSET")
    return {_text(synset): _text(name) for name, synset in rows}


def _lists(folder: Path) -> dict[str, str]:
    """Read ShapeNet-Part's lists of splits: SYNSET/NAME -> split."""
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        file = folder / LISTS / f"shuffled_{split}_file_list.json"
        if not file.is_file():
            continue
        entries = _json(file)
        if not isinstance(entries, list):
            raise InputError(f"{file} is no list of SYNSET/NAME")
        for entry in entries:
            place = "/".join(str(entry).split("/")[-2:])
            if splits.setdefault(_text(place), split) != split:
                raise InputError(f"{file}: {place!r} is in split {splits[place]} as well")
    return splits


def _known(folder: Path, refs: Iterable[PartRef]) -> Names:
    """Say which parts the classes have: by parts.json, or because they are ShapeNet-Part's."""
    file = folder / PARTS
    found: dict[str, dict[int, str]] = {}
    if file.is_file():
        try:
            for row in _json(file)["labels"]:
                found.setdefault(str(row["class"]), {})[int(row["id"])] = str(row["part"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} names no parts: labels with id, class, part") from error
    for ref in refs:
        if ref.folder in SHAPENET_PART and ref.class_name not in found:
            first, last = SHAPENET_PART[ref.folder]
            found[ref.class_name] = {label: str(label) for label in range(first, last + 1)}
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}") from error


def _text(name: str) -> str:
    return unicodedata.normalize("NFC", name)
