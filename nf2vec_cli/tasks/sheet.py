"""A contact sheet: sources beside what was rebuilt from their fields, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nf2vec_cli.core.snapshot import snapshot
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.load import Shape
from nf2vec_cli.shapes.sample import surface_sample

SIZE = 220  # pixels of a picture
DRAWN = 120_000  # points of a surface, so that no ground shines through
TEXT, GAP = 14, 6  # pixels of a line of text, and between tiles


@dataclass(frozen=True)
class Tile:
    """Pictures of one object side by side, and what is written below them."""

    pictures: tuple[NDArray[np.uint8], ...]
    caption: tuple[str, ...]


def picture_of(shape: Shape | None, up: str = "y") -> NDArray[np.uint8]:
    """Look at a shape in unit space; None gives an empty picture."""
    if shape is None or (isinstance(shape, Mesh) and not len(shape.faces)):
        return np.full((SIZE, SIZE, 3), 235, np.uint8)
    if isinstance(shape, Mesh):
        rng = np.random.default_rng(0)
        points, normals = surface_sample(shape.vertices, shape.faces, DRAWN, rng=rng)
        return snapshot(points, normals, size=SIZE, up=up)
    if isinstance(shape, Cloud):
        return snapshot(shape.points, shape.normals, size=SIZE, up=up, splat=3)
    cells = (2 * np.argwhere(shape.grid) + 1) / len(shape.grid) - 1
    return snapshot(cells, None, size=SIZE, up=up, splat=max(2, SIZE // len(shape.grid)))


def write_sheet(tiles: Sequence[Tile], file: Path, *, columns: int = 3) -> None:
    """Write tiles row by row as a PNG, under another name first."""
    lines = max((len(tile.caption) for tile in tiles), default=0)
    across = max((len(tile.pictures) for tile in tiles), default=1)
    width, height = across * SIZE + GAP, SIZE + lines * TEXT + GAP
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * width + GAP, max(rows, 1) * height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for number, tile in enumerate(tiles):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        for place, picture in enumerate(tile.pictures):
            canvas.paste(Image.fromarray(picture), (left + place * SIZE, top))
        for line, text in enumerate(tile.caption):
            draw.text((left + 4, top + SIZE + line * TEXT), text, fill="black")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    canvas.save(part, format="PNG")
    part.replace(file)
