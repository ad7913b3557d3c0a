"""The colours in an OFF file, which trimesh leaves out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def off_colours(data: bytes, vertices: int, faces: int) -> tuple[str, Floats] | None:
    """Read the colours of vertices (COFF) or of faces (after a face's corners).

    Args:
        data: the file, as UTF-8 text.
        vertices: how many the mesh has.
        faces: how many triangles: if the file has other polygons, their colours are not read.

    Returns:
        "vertex" or "face" and RGB in [0, 1], or None if there are none, or not for all.
    """
    text = data.decode("utf-8-sig", "replace")
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    words = [line for line in lines if line]
    coloured = words[0][0].upper().startswith("COFF")
    first = words[0][1:] or words[1]
    rows = words[1 if words[0][1:] else 2 :]
    if [int(word) for word in first[:2]] != [vertices, faces]:
        return None
    if coloured and all(len(row) >= 6 for row in rows[:vertices]):
        return "vertex", _values([row[3:6] for row in rows[:vertices]])
    polygons = rows[vertices : vertices + faces]
    if polygons and all(row[0] == "3" and len(row) >= 7 for row in polygons):
        return "face", _values([row[4:7] for row in polygons])
    return None


def _values(words: list[list[str]]) -> Floats:
    """Whole numbers go up to 255, others to 1."""
    values = np.array(words, np.float64)
    whole = not any("." in word for row in words for word in row)
    return (values / 255 if whole else values).clip(0, 1)
