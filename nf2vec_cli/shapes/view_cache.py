"""Views of a shape: read from its folder, or taken of its mesh and kept for the next time."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.numbers import read_arrays
from nf2vec_cli.shapes.pictures import Colour
from nf2vec_cli.shapes.render_views import LOOK, render_mesh
from nf2vec_cli.shapes.views import Views, load_views

log = logging.getLogger(__name__)
SUFFIX = ".npz"


def views_of(
    path: Path,
    *,
    views: int = 36,
    size: int = 100,
    seed: int = 0,
    how: Literal["box", "vertices"] = "box",
    background: Colour | None = None,
    cache: Path | None = None,
    digest: bytes = b"",
) -> Views:
    """Read a folder of pictures, or take pictures of a mesh file.

    Args:
        path: folder or mesh.
        views: pictures to fit that are taken of a mesh.
        size: pixels of their sides.
        seed: turns their cameras.
        how: centre of the mesh's unit sphere, as for `normalise`.
        background: of pictures without alpha.
        cache: folder in which pictures of meshes are kept, one file for each; None: nowhere. It
            may be deleted at any time.
        digest: the mesh's fingerprint for the kind nerf, by which they are found again.

    Raises:
        InputError: the folder or mesh cannot be used.
        OSError: it cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        return load_views(path, background=background)
    if cache is None:
        return render_mesh(path, views=views, size=size, seed=seed, how=how)
    facts = f"{LOOK} {views} {size} {seed} {how} ".encode() + digest
    file = cache / f"{sha256(facts).hexdigest()[:32]}{SUFFIX}"
    found = _kept(file, size)
    if found is None:
        found = render_mesh(path, views=views, size=size, seed=seed, how=how)
        _keep(found, file)
    return found


def _kept(file: Path, size: int) -> Views | None:
    """Read what was kept; None if there is nothing, or it is damaged."""
    try:
        arrays = read_arrays(file.read_bytes(), SUFFIX)
        count = len(arrays["pixels"])
        wanted = {
            "pixels": (np.uint8, (count, size, size, 4)),
            "poses": (np.float64, (count, 3, 4)),
            "focal": (np.float32, (count,)),
            "held": (np.bool_, (count,)),
            "box": (np.float64, (4,)),
        }
        for name, (kind, shape) in wanted.items():
            if arrays[name].dtype != kind or arrays[name].shape != shape:
                raise InputError(f"its {name} are none")
        whole: dict[str, Any] = {name: arrays[name].copy() for name in wanted}
        return Views(**whole, notes=tuple(str(note) for note in arrays["notes"].tolist()))
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with it, it can be made again
        log.warning("%s is made again: %s", file, error)
        return None


def _keep(views: Views, file: Path) -> None:
    """Write views under another name first; a cache that cannot be written is done without."""
    stream = BytesIO()
    notes = np.array(views.notes, dtype=np.str_)
    np.savez_compressed(
        stream,
        pixels=views.pixels,
        poses=views.poses,
        focal=views.focal,
        held=views.held,
        box=views.box,
        notes=notes,
    )
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(stream.getvalue())
        part.replace(file)
    except OSError as error:
        log.warning("%s cannot be kept: %s", file, error)
    finally:
        with suppress(OSError):
            part.unlink()
