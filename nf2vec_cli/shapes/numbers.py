"""Arrays of numbers from NPY, NPZ and text, without pickle, and never larger than the file says."""

from __future__ import annotations

from io import BytesIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError

LARGEST = 5 << 29  # bytes that packed arrays may unpack to
Array = NDArray[np.generic]


def read_arrays(data: bytes, suffix: str) -> dict[str, Array]:
    """Read the arrays of an .npy or .npz file by name; that of an .npy has the name "array".

    Raises:
        InputError: it is cut short, corrupt, holds Python objects, or unpacks to more than 2.5 GiB.
    """
    if suffix == ".npy":
        return {"array": _array(data)}
    try:
        with ZipFile(BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            size = sum(member.file_size for member in members)
            if size > LARGEST:
                raise InputError(f"its arrays unpack to {size / 2**30:.0f} GiB")
            return {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except BadZipFile as error:
        raise InputError("the file is corrupt, cut short or no NPZ") from error


def _array(data: bytes) -> Array:
    """Read one array; a header that promises more than is there is refused before it costs."""
    stream = BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except ValueError as error:
        raise InputError("the file is corrupt, cut short or no NPY") from error
    if dtype.hasobject:
        raise InputError("it holds Python objects, which we never load: save plain numbers")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    start = stream.tell()
    wanted, there = count * dtype.itemsize, len(data) - start
    if wanted > there:
        raise InputError(f"the file is cut short: {wanted} bytes of numbers, {there} there")
    flat = np.frombuffer(data, dtype, count, start) if wanted else np.empty(count, dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def named(arrays: dict[str, Array], names: tuple[str, ...]) -> Array | None:
    """Choose the array of the first of `names` that is there, or the only one there is."""
    found = next((name for name in names if name in arrays), None)
    if found is None and len(arrays) == 1:
        found = next(iter(arrays))
    return None if found is None else arrays[found]


def shapes_of(arrays: dict[str, Array]) -> str:
    """List what a file holds, for a refusal."""
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"


def read_table(data: bytes) -> NDArray[np.float64]:
    """Read rows of numbers from text: space, tab, comma or semicolon; # and // begin a comment.

    A first line that is a header or a count of points is left out.

    Raises:
        InputError: it is no text, or its rows are no numbers or of different lengths.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("it is no text of numbers: it is not UTF-8") from error
    for mark in ",;\t":
        text = text.replace(mark, " ")
    lines = text.split("\n")
    if "#" in text or "//" in text:
        lines = [line.split("#")[0].split("//")[0] for line in lines]
    lines = [line for line in lines if line.strip()]
    if lines and not _is_row(lines[0]):
        lines = lines[1:]
    if not lines:
        raise InputError("the cloud has no points")
    width = len(lines[0].split())
    try:
        flat = np.array(" ".join(lines).split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"it is no text of numbers: {error}") from error
    if width < 3 or len(flat) != width * len(lines):
        raise InputError("its rows have fewer than three numbers, or not all the same count")
    return flat.reshape(-1, width)


def _is_row(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()]) >= 3
    except ValueError:
        return False
