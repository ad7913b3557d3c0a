"""Numbers from HDF5 files, by h5py (extra `h5`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.errors import InputError, UsageFault
from nf2vec_cli.foreign.found import LARGEST

SUFFIXES = (".h5", ".hdf5")


def h5py_module() -> Any:
    """Import h5py.

    Raises:
        UsageFault: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageFault(
            "HDF5 files need h5py, which is not installed", hint="`pip install 'nf2vec[h5]'`"
        ) from error
    return h5py


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """Open a file to read.

    Raises:
        InputError: it is damaged or no HDF5 file, or what is read of it is.
        OSError: it cannot be opened.
    """
    h5py = h5py_module()
    with path.open("rb") as raw:  # h5py's own errors hide which it was: not there, or not HDF5
        try:
            with h5py.File(raw, "r") as opened:
                yield opened
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = (str(error).splitlines() or ["?"])[0][:120]
            raise InputError(f"the file is damaged, or no HDF5 file: {reason}") from error


def array_of(opened: Any, name: str) -> Any:
    """Give an array by its name, unread; None: there is none, or it is a group."""
    found = opened.get(name)
    return found if isinstance(found, h5py_module().Dataset) else None


def numbers(opened: Any, name: str, *, dims: int | None = None) -> Any:
    """Read an array of numbers, of `dims` dimensions.

    Raises:
        InputError: it is not there, too large, of another shape, or holds no numbers.
    """
    found = array_of(opened, name)
    if found is None:
        raise InputError(f"it has no array {name!r}: there are {', '.join(sorted(opened)[:8])}")
    if found.dtype.kind not in "fiu" or (found.shape is None):
        raise InputError(f"{name!r} holds no numbers")
    if found.size > LARGEST or (dims is not None and found.ndim != dims):
        raise InputError(f"{name!r} has the shape {found.shape}")
    return np.asarray(found[()])


def text_of(opened: Any, name: str) -> str:
    """Give a scalar as a text: a whole number, or a text itself; "" if there is none."""
    found = array_of(opened, name)
    if found is None or found.shape is None or found.size != 1:
        return ""
    value = np.asarray(found[()]).reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if np.asarray(value).dtype.kind in "iuf" else str(value)
