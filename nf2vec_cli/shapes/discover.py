"""From a folder, a list or standard input to named shapes with labels."""

from __future__ import annotations

import csv
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from io import StringIO
from pathlib import Path
from posixpath import basename, splitext
from typing import NamedTuple

from nf2vec_cli.errors import InputError, UsageFault
from nf2vec_cli.shapes.mesh import SUFFIXES
from nf2vec_cli.shapes.transforms import PATTERN, is_view_folder, names_views

log = logging.getLogger(__name__)
SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
LISTS = (".txt", ".lst")
Found = tuple[str, bool]  # absolute path of a shape, and whether it is a folder of pictures


class ShapeRef(NamedTuple):
    """A shape that can be read: its stable id, where it lies, and its labels.

    A tuple, and its place as text: a folder may hold a million, of which a run opens a few.
    """

    id: str  # path under the root without suffix, '/' between parts, NFC
    place: str  # absolute path of a file, or of a folder of pictures
    source: str  # path under the root
    class_name: str = ""
    split: str = ""
    copy: int = 0  # 0: the shape itself; from 1 on: an augmented copy of it
    parent: str = ""  # id of the shape that a copy is made of

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.place)


def discover(
    source: str | Path,
    *,
    root: Path | None = None,
    labels: Path | None = None,
    suffixes: tuple[str, ...] = SUFFIXES,
    stdin: Iterable[str] | None = None,
) -> list[ShapeRef]:
    """Find shapes, sorted by id.

    Args:
        source: a folder; a shape's file; a text file (.txt, .lst) of paths, one a line; or "-" for
            paths on standard input. CLASS/SPLIT/NAME.ext and CLASS/NAME.ext give the labels.
        root: folder that ids are relative to. Default: the folder; the list's folder; here.
        labels: CSV file with columns name, class, split (which may be missing); its names are ids
            or file names, with or without suffix and folders.
        suffixes: of the files that count. With `transforms*.json` among them, a folder that holds
            such a file is one shape, whatever else is in it; its id keeps what is after a dot.
        stdin: lines to read instead of standard input.

    Raises:
        InputError: there is nothing to read.
        UsageFault: two paths of a list have one id.
    """
    base, found = _paths(source, root, suffixes, stdin)
    refs = sorted(_named(found, base), key=lambda ref: ref.id)
    if not refs:
        wanted = " ".join(suffixes)
        raise InputError(f"{str(source)!r} holds no shape (looked for {wanted})")
    return labelled(refs, labels) if labels else refs


def with_copies(refs: list[ShapeRef], copies: int) -> list[ShapeRef]:
    """Add augmented copies of each shape for training: `ID+1` to `ID+copies` (paper, section IV).

    Shapes of the splits val and test get none. A shape without a split may be for training.
    """
    found = []
    for ref in refs:
        found.append(ref)
        if ref.split in ("train", ""):
            found += [
                ref._replace(id=f"{ref.id}+{copy}", copy=copy, parent=ref.id)
                for copy in range(1, copies + 1)
            ]
    return found


def _paths(
    source: str | Path,
    root: Path | None,
    suffixes: tuple[str, ...],
    stdin: Iterable[str] | None,
) -> tuple[str, Iterable[Found]]:
    """Give the folder that names are relative to, and the shapes; all paths absolute."""
    base = _absolute(root) if root else ""
    if str(source) == "-":
        here = _absolute(".")
        return base or here, _listed(sys.stdin if stdin is None else stdin, here)
    place = Path(_absolute(source))
    home = str(place.parent)
    if PATTERN in suffixes and is_view_folder(place):
        return base or home, [(str(place), True)]
    if place.is_dir():
        return base or str(place), _walk(str(place), suffixes)
    if not place.exists():
        raise InputError(f"{str(source)!r} is not there")
    if place.suffix.lower() in LISTS:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{str(source)!r} is no list of paths: it is not UTF-8") from error
        return base or home, _listed(lines, home)
    if place.suffix.lower() not in suffixes:
        raise InputError(
            f"{str(source)!r} is neither a folder, a shape ({' '.join(suffixes)}) nor a list of "
            "paths (.txt, .lst)"
        )
    return base or home, [(str(place), False)]


def _walk(folder: str, suffixes: tuple[str, ...]) -> Iterator[Found]:
    """Yield the shape files of a folder; hidden ones and links that lead out of it are left out."""
    inside, waiting = Path(folder).resolve(), [folder]
    while waiting:
        where = waiting.pop()
        try:
            with os.scandir(where) as opened:
                entries = list(opened)
        except OSError as error:
            log.warning("%r is left out: %s", where, error)
            continue
        if PATTERN in suffixes and names_views([entry.name for entry in entries]):
            yield where, True
            continue
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif name.lower().endswith(suffixes) and not entry.is_dir():
                path = entry.path
                if entry.is_symlink() and not Path(path).resolve().is_relative_to(inside):
                    log.warning("%r is left out: it links to a file outside %s", path, folder)
                    continue
                yield path, False


def _listed(lines: Iterable[str], folder: str) -> list[Found]:
    texts = (line.rstrip("\r\n") for line in lines)
    wanted = (text for text in texts if text.strip() and not text.lstrip().startswith("#"))
    paths = dict.fromkeys(_absolute(os.path.join(folder, text)) for text in wanted)  # noqa: PTH118
    return [(path, os.path.isdir(path)) for path in paths]  # noqa: PTH112


def _named(found: Iterable[Found], root: str) -> Iterator[ShapeRef]:
    start = root.rstrip("/") + "/"
    # one outside the root has its own parts
    places = sorted((path.removeprefix(start).lstrip("/"), path, folder) for path, folder in found)
    taken: set[str] = set()
    for source, path, folder in places:
        name = _text(source if folder else _without_suffix(source))
        if name in taken:  # a/x.obj and a/x.stl: the later keeps its suffix
            name = _text(source)
        if name in taken:
            raise UsageFault(f"two shapes have the id {name!r}")
        taken.add(name)
        class_name, split = _labels_of(source.rpartition("/")[0])
        yield ShapeRef(name, path, source, class_name, split)


def _without_suffix(source: str) -> str:
    name, suffix = splitext(source)
    return source if suffix == "." else name


def _absolute(path: str | Path) -> str:
    """Make a path absolute, without `..`; links stay, since a name may be a link."""
    return os.path.abspath(path)  # noqa: PTH100


@lru_cache(maxsize=1 << 16)  # of a folder, not of each file
def _labels_of(folder: str) -> tuple[str, str]:
    folders = [part for part in folder.split("/") if part]
    split = next((SPLITS[part.lower()] for part in folders if part.lower() in SPLITS), "")
    classes = [part for part in folders if part.lower() not in SPLITS]
    return (_text(classes[0]) if classes else ""), split


def _text(name: str) -> str:
    """Compose letters; bytes of a file name that are no UTF-8 become escapes."""
    if name.isascii():
        return name
    raw = name.encode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", raw.decode("utf-8", "backslashreplace"))


def labelled(refs: list[ShapeRef], file: Path) -> list[ShapeRef]:
    """Give shapes the labels of a CSV file, as `discover` does; those it does not name keep theirs.

    Raises:
        InputError: it cannot be read, or names none of them.
    """
    table = _read_labels(file)
    used: set[str] = set()
    found = []
    for ref in refs:
        source = _text(ref.source)
        keys = (ref.id, source, basename(ref.id), basename(source))
        key = next((key for key in keys if key in table), None)
        if key is None:
            found.append(ref)
            continue
        used.add(key)
        class_name, split = table[key]
        found.append(ref._replace(class_name=class_name, split=split))
    if not used:
        raise InputError(f"{file} names none of the {len(refs)} shapes (first: {refs[0].id!r})")
    if len(used) < len(table):
        log.warning("%s names %d shapes that are not there", file, len(table) - len(used))
    if len(used) < len(refs):
        log.warning("%s leaves %d shapes without labels of its own", file, len(refs) - len(used))
    return found


def _read_labels(file: Path) -> dict[str, tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as UTF-8 text: {error}") from error
    reader = csv.DictReader(StringIO(text, newline=""))
    table: dict[str, tuple[str, str]] = {}
    try:
        missing = [name for name in ("name", "class") if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{file} line 1: there is no column {' and no '.join(missing)}")
        for row in reader:
            name, class_name, split = (
                _text((row.get(key) or "").strip()) for key in ("name", "class", "split")
            )
            if name in table:
                raise InputError(f"{file} line {reader.line_num}: {name!r} is there twice")
            if name:
                table[name] = (class_name, SPLITS.get(split.lower(), split))
    except csv.Error as error:
        raise InputError(f"{file} line {reader.line_num}: {error}") from error
    return table
