"""Which layout a folder of fields has, which objects it holds, and how each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError, Nf2vecError
from nf2vec_cli.foreign import LayoutName, fit_a_nef, nerf_folder, nf2vec_h5, state_dict
from nf2vec_cli.foreign.found import Found
from nf2vec_cli.foreign.hdf5 import SUFFIXES as H5
from nf2vec_cli.foreign.hdf5 import open_h5
from nf2vec_cli.shapes.discover import ShapeRef, discover, labelled

CHECKPOINTS = (".pth", ".pt")
SUFFIXES = {
    LayoutName.nf2vec_h5: H5,
    LayoutName.fit_a_nef: H5,
    LayoutName.nerf_folder: (".pth",),
    LayoutName.safetensors: (".safetensors",),
    LayoutName.state_dict: CHECKPOINTS,
    LayoutName.dwsnets: CHECKPOINTS,
}
Reader = Callable[[ShapeRef, ImportConfig], Found]


@dataclass(frozen=True)
class Listed:
    """The objects of a source, sorted by id, its layout, and files that cannot be listed."""

    layout: LayoutName
    refs: tuple[ShapeRef, ...]
    broken: tuple[tuple[str, str], ...] = ()


def list_fields(
    source: str | Path,
    layout: LayoutName,
    *,
    root: Path | None = None,
    labels: Path | None = None,
) -> Listed:
    """Find the fields of a folder, a list or standard input, as `shapes.discover` finds shapes.

    Raises:
        InputError: there are none.
    """
    every = tuple(dict.fromkeys(suffix for some in SUFFIXES.values() for suffix in some))
    refs = discover(source, root=root, suffixes=SUFFIXES.get(layout, every))
    if layout is LayoutName.auto:
        layout = _guessed(refs[0], {ref.path.name for ref in refs})
    refs = [ref for ref in refs if ref.path.suffix.lower() in SUFFIXES[layout]]
    broken: list[tuple[str, str]] = []
    if layout is LayoutName.nerf_folder:
        refs = [_folder(ref) for ref in refs if ref.path.name == nerf_folder.WEIGHTS]
    if layout is LayoutName.fit_a_nef:
        refs = list(_rows(refs, broken))
    if not refs and not broken:
        raise InputError(f"{str(source)!r} holds no field of layout {layout}")
    return Listed(layout, tuple(labelled(refs, labels) if labels else refs), tuple(broken))


def reader_of(layout: LayoutName, params: str = nf2vec_h5.PARAMS) -> Reader:
    """Give what reads one object of a layout."""
    if layout is LayoutName.nf2vec_h5:
        return partial(nf2vec_h5.read, params=params)
    if layout is LayoutName.fit_a_nef:
        return fit_a_nef.read
    return nerf_folder.read if layout is LayoutName.nerf_folder else state_dict.read


def defaults_of(layout: LayoutName) -> dict[str, object]:
    """Give the settings that a layout implies."""
    return dict(state_dict.DWSNETS) if layout is LayoutName.dwsnets else {}


def _guessed(first: ShapeRef, names: set[str]) -> LayoutName:
    """Tell a layout from the first file; of HDF5 by what is in it."""
    if nerf_folder.WEIGHTS in names:
        return LayoutName.nerf_folder
    suffix = first.path.suffix.lower()
    if suffix in H5:
        return LayoutName.fit_a_nef if _has_parts(first.path) else LayoutName.nf2vec_h5
    return LayoutName.state_dict if suffix in CHECKPOINTS else LayoutName.safetensors


def _has_parts(path: Path) -> bool:
    try:
        with open_h5(path) as opened:
            return fit_a_nef.CONFIG in opened
    except (InputError, OSError):
        return False  # it fails where it is read, with its reason


def _folder(ref: ShapeRef) -> ShapeRef:
    """Name an object by its folder."""
    inside = PurePosixPath(ref.id).parent
    name = str(inside) if inside.parts else ref.path.parent.name
    first = inside.parts[0] if len(inside.parts) > 1 else ""
    return ref._replace(id=name, class_name=first if ref.class_name == name else ref.class_name)


def _rows(refs: list[ShapeRef], broken: list[tuple[str, str]]) -> Iterator[ShapeRef]:
    for ref in refs:
        try:
            yield from fit_a_nef.expand(ref)
        except (Nf2vecError, OSError) as error:
            broken.append((ref.id, str(error)))
