"""One object from field to file: build, place, write, compare. Runs in a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.models.transform import Affine
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.load import Shape, load_shape
from nf2vec_cli.shapes.unit import onto_unit
from nf2vec_cli.shapes.write import write_shape
from nf2vec_cli.tasks.fit_object import copied, cropped
from nf2vec_cli.tasks.picture_object import Film
from nf2vec_cli.tasks.rebuild import Built, Form, Shown, build, same_form
from nf2vec_cli.tasks.score import Quality, compare
from nf2vec_cli.tasks.sheet import picture_of


@dataclass(frozen=True)
class Rebuilt:
    """One object's mesh, cloud or voxels, compared in unit space with its source if that is there.

    count: faces, points or occupied cells. chamfer: mean distance, sample to surface, both ways;
    f1, f025: F-score at 1 % and 0.25 % of the unit sphere's radius; iou: of voxels. evaluated:
    share of the dense grid that was evaluated.
    """

    id: str
    file: str | None
    count: int = 0
    chamfer: float | None = None
    f1: float | None = None
    f025: float | None = None
    iou: float | None = None
    evaluated: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What to make of each field.

    form: mesh, cloud or voxels; None: what comes natural to the kind of field. suffix: file type;
    None: the form's first. resolution: grid points or cells along each axis of [-1, 1]^3; None: 128
    for a mesh, the cells that were fitted for voxels. points: of a cloud. move: applied to the
    field in unit space before anything is read from it. film: how pictures are taken; None: as
    usual.
    """

    form: Form | None = None
    suffix: str | None = None
    resolution: int | None = None
    points: int = 8_192
    move: Affine | None = None
    film: Film | None = None


@dataclass(frozen=True)
class Chore:
    """One object to rebuild, with all that a worker needs for it."""

    id: str
    field: Shown
    kind: str
    transform: NDArray[np.float64]
    copy: tuple[int, int]  # number and seed of an augmented copy
    source: tuple[Path, ...]  # where it may be
    digest: bytes
    file: Path
    form: Form
    resolution: int
    config: FitConfig
    wanted: Wanted


def rebuild(chore: Chore) -> Rebuilt:
    """Make one object's file, and compare it with its source."""
    built = _built(chore)
    count = count_of(built.shape)
    if not count:
        problem = f"nothing of the field is left to make a {chore.form} of"
        return Rebuilt(chore.id, None, evaluated=built.evaluated, problem=problem)
    centre, scale = chore.transform[:3], float(chore.transform[3])
    move = chore.wanted.move
    shape = placed(built.shape, move, frame_of(move, chore.kind), centre, scale)
    write_shape(shape, chore.file, colours=built.colours)
    source = _source(chore)
    quality = Quality()
    if source is not None:
        unit = onto_unit(source, centre, scale)
        quality = compare(
            built.shape, same_form(unit, chore.kind, chore.form, chore.resolution, chore.config)
        )
    return Rebuilt(
        chore.id,
        str(chore.file),
        count,
        quality.chamfer,
        quality.f1,
        quality.f025,
        quality.iou,
        built.evaluated,
    )


def pictured(chore: Chore) -> tuple[NDArray[np.uint8], ...]:
    """Draw the source, in the form of what was built, and the result."""
    built = _built(chore).shape
    source = _source(chore)
    if source is not None:
        source = onto_unit(source, chore.transform[:3], float(chore.transform[3]))
        source = same_form(source, chore.kind, chore.form, chore.resolution, chore.config)
    return picture_of(source), picture_of(built)


def _built(chore: Chore) -> Built:
    return build(
        chore.field,
        chore.kind,
        chore.form,
        resolution=chore.resolution,
        points=chore.wanted.points,
        seed=chore.copy[1],
    )


def frame_of(move: Affine | None, kind: str) -> Affine | None:
    """Give the move of a field, with what it takes to stay within [-1, 1]^3."""
    if move is None:
        return None
    reach = move.stretches[0]
    if kind == "occ":  # fills the cube, not only the sphere
        reach = np.abs(move.linear).sum(axis=1).max()
    return Affine(move.linear / reach, np.zeros(3))


def placed(
    shape: Shape,
    move: Affine | None,
    frame: Affine | None,
    centre: NDArray[np.float64],
    scale: float,
) -> Shape:
    """Bring what was built in unit space to the user's units, and to the place it was moved to."""
    if move is not None and frame is not None:
        centre = centre + scale * move.shift
        scale *= float(np.abs(move.linear).max() / np.abs(frame.linear).max())
    if isinstance(shape, Mesh):
        return replace(shape, vertices=shape.vertices * scale + centre)
    if isinstance(shape, Cloud):
        return replace(shape, points=shape.points * scale + centre)
    return replace(shape, origin=centre - scale, pitch=2 * scale / len(shape.grid))


def count_of(shape: Shape) -> int:
    if isinstance(shape, Mesh):
        return len(shape.faces)
    return len(shape.points) if isinstance(shape, Cloud) else int(shape.grid.sum())


def _source(chore: Chore) -> Shape | None:
    """Read the source if it is where it was, with the content that was fitted."""
    lit = chore.kind == "nerf"  # compared with a mesh, if it was made from pictures of one
    if chore.wanted.move is not None or (lit and chore.form is Form.voxels):
        return None
    for path in chore.source:
        try:
            if path.is_file() and fingerprint(path, kind=chore.kind)[0] == chore.digest:
                whole = copied(load_shape(path, "udf" if lit else chore.kind), *chore.copy)
                return cropped(whole, chore.config, chore.copy[1])
        except (OSError, InputError):
            continue
    return None
