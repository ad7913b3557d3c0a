"""Colours looked up in textures, at the fineness that a picture can show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nf2vec_cli.shapes.pictures import Pixels

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Textures:
    """Textures of a mesh's faces, each with copies of half the size, a quarter, and so on.

    A face has the copy whose texels are about as far apart as the rays that meet it; finer ones
    would flicker from picture to picture. It depends on the face alone, not on the view, so that
    all pictures agree.

    Args:
        skins: [H, W, 4] each.
        skin: [F], a face's texture, or -1.
        uv: [F, 3, 2], where its corners are in it, in [0, 1]; v runs up.
        area: [F], of the faces.
        spacing: of rays on the faces, in the unit of `area`'s root.
    """

    def __init__(
        self,
        skins: tuple[Pixels, ...],
        skin: Whole,
        uv: NDArray[np.floating],
        area: Floats,
        spacing: float,
    ) -> None:
        self._copies = [_halved(pixels) for pixels in skins]
        self._skin, self._uv = skin, uv
        self._level = np.zeros(len(skin), np.int64)
        for number, copies in enumerate(self._copies):
            chosen = np.flatnonzero(skin == number)
            a, b = np.moveaxis(uv[chosen, 1:] - uv[chosen, :1], 1, 0).astype(np.float64)
            within = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
            texels = within * copies[0].shape[0] * copies[0].shape[1]
            for_a_ray = texels / np.maximum(area[chosen], 1e-300) * spacing**2
            level = np.rint(np.log2(np.maximum(for_a_ray, 1)) / 2)
            self._level[chosen] = np.minimum(level, len(copies) - 1)

    def at(self, face: Whole, weights: Floats) -> Floats:  # [R], [R, 3] -> [R, 4]
        """Look up points of faces by their barycentric coordinates: RGBA in [0, 1]."""
        uv = (self._uv[face] * weights[..., None]).sum(1)
        skin, level = self._skin[face], self._level[face]
        found = np.empty((len(face), 4))
        for number, copies in enumerate(self._copies):
            for fineness, pixels in enumerate(copies):
                chosen = (skin == number) & (level == fineness)
                if chosen.any():
                    found[chosen] = _bilinear(pixels, uv[chosen])
        return found


def _halved(pixels: Pixels) -> list[Pixels]:
    """List a picture and its copies of half the size, down to a side of one pixel."""
    copies = [pixels]
    while min(copies[-1].shape[:2]) > 1:
        copies.append(np.array(Image.fromarray(copies[-1]).reduce(2), np.uint8))
    return copies


def _bilinear(skin: Pixels, uv: Floats) -> Floats:  # [H, W, 4], [R, 2] -> [R, 4]
    """Mix the four texels around each place; beyond its edges the texture repeats."""
    height, width = skin.shape[:2]
    x = np.mod(uv[:, 0], 1) * width - 0.5
    y = np.mod(1 - uv[:, 1], 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
    above, below = (
        skin[row, columns[0]] * (1 - across) + skin[row, columns[1]] * across for row in rows
    )
    found: Floats = (above * (1 - down) + below * down) / 255
    return found
