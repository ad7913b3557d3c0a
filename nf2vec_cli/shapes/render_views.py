"""Pictures of a coloured mesh by casting rays: without a GPU, a display, or another package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import igl
import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.cameras import RADIUS, cameras_around, directions, focal_length
from nf2vec_cli.shapes.mesh import normalise
from nf2vec_cli.shapes.paint import Painted, load_painted
from nf2vec_cli.shapes.pictures import Pixels
from nf2vec_cli.shapes.textures import Textures
from nf2vec_cli.shapes.views import Views

LOOK = 1  # goes up with whatever changes what is drawn: pictures that are kept are then remade
AMBIENT, SUN = 0.55, 0.45  # a face turned to the sun is as bright as its colour
TOWARDS_SUN = np.array([0.5, 0.75, 0.433])  # y up
FINER = 2  # rays along each side of a pixel
LAYERS = 8  # surfaces with holes that a ray may pass
AHEAD = 1e-4  # in unit space: by how much a ray goes on from a hole
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def render_mesh(
    path: Path,
    *,
    views: int = 36,
    size: int = 100,
    seed: int,
    how: Literal["box", "vertices"] = "box",
) -> Views:
    """Take pictures of a mesh file from all around.

    The mesh is moved into the unit sphere as for the other kinds of field, and looked at from a
    distance of 3: `views` pictures to fit, and max(4, views // 4) held out. Colours are shaded by a
    fixed sun and its ambient light (Lambert, on the side that is seen, without shadows).

    Args:
        path: a mesh, in any format that `load_mesh` reads.
        views: pictures to fit.
        size: pixels of their sides.
        seed: turns the cameras.
        how: centre of the unit sphere, as for `normalise`.

    Returns:
        Views in the user's units: the box is that of the unit sphere.

    Raises:
        InputError: as `load_painted`, or nothing of it is seen.
        OSError: it cannot be opened.
    """
    painted = load_painted(path)
    unit, centre, scale = normalise(painted.vertices, how=how)
    turns = np.random.default_rng(seed).uniform(0, 2 * np.pi, 2)
    apart = max(4, views // 4)
    poses = np.concatenate(
        [cameras_around(n, turn=turn) for n, turn in zip((views, apart), turns, strict=True)]
    )
    scene = _Scene(painted, unit, size)
    pixels = np.stack([scene.picture(pose) for pose in poses])
    if not pixels[..., 3].any():
        raise InputError("its pictures show nothing: it is too thin to be seen")
    poses[:, :, 3] = poses[:, :, 3] * scale + centre
    return Views(
        pixels,
        poses,
        np.full(len(poses), focal_length(size), np.float32),
        np.arange(len(poses)) >= views,
        np.array([*centre, scale]),
        painted.notes,
    )


class _Scene:
    """A painted mesh in unit space, ready to be looked at."""

    def __init__(self, painted: Painted, unit: Floats, size: int) -> None:
        self.painted, self.size = painted, size
        self.vertices = np.ascontiguousarray(unit)
        self.faces = np.ascontiguousarray(painted.faces)
        corners = self.vertices[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        self.normals = normals / np.maximum(length, 1e-300)
        spacing = RADIUS / focal_length(size * FINER)
        self.textures = Textures(painted.skins, painted.skin, painted.uv, length[:, 0] / 2, spacing)
        self.sun = TOWARDS_SUN / np.linalg.norm(TOWARDS_SUN)
        self.tree = igl.AABB()
        self.tree.init(self.vertices, self.faces)

    def picture(self, pose: Floats) -> Pixels:  # [size, size, 4]
        """Take one picture; alpha is the share of a pixel's rays that hit."""
        size = self.size
        rays = directions(size * FINER, pose)
        face, place = self._hits(pose[:, 3], rays)
        hit = face >= 0
        seen = np.zeros((len(rays), 4))
        seen[hit, :3] = self._shaded(face[hit], place[hit], rays[hit])
        seen[hit, 3] = 1
        blocks = seen.reshape(size, FINER, size, FINER, 4).sum(axis=(1, 3))
        blocks[..., :3] /= np.maximum(blocks[..., 3:], 1)
        blocks[..., 3] /= FINER**2
        pixels: Pixels = np.rint(255 * blocks).astype(np.uint8)
        return pixels

    def _hits(self, eye: Floats, rays: Floats) -> tuple[Whole, Floats]:
        """Find the first face of each ray, or -1, and where on it: [R], [R, 2] barycentric."""
        face = np.full(len(rays), -1)
        place = np.zeros((len(rays), 2))
        left = np.arange(len(rays))
        from_here = np.broadcast_to(eye, rays.shape).copy()
        for _ in range(LAYERS):
            found, away, where = self.tree.intersect_ray_first(
                self.vertices, self.faces, from_here, rays[left]
            )
            hit = found >= 0
            left, found, away, where = left[hit], found[hit], away[hit], where[hit]
            face[left], place[left] = found, where
            holes = self._holes(found, where)
            if not holes.any():
                break
            from_here = from_here[hit][holes] + (away[holes] + AHEAD)[:, None] * rays[left[holes]]
            left = left[holes]
            face[left] = -1
        return face, place

    def _holes(self, face: Whole, place: Floats) -> NDArray[np.bool_]:
        holes = self.painted.cut[face].copy()
        if holes.any():
            holes[holes] = self.textures.at(face[holes], _weights(place[holes]))[:, 3] < 0.5
        return holes

    def _shaded(self, face: Whole, place: Floats, rays: Floats) -> Floats:  # [R, 3]
        weights = _weights(place)
        colour = (self.painted.colours[face] * weights[..., None]).sum(1)
        skinned = self.painted.skin[face] >= 0
        if skinned.any():
            colour[skinned] *= self.textures.at(face[skinned], weights[skinned])[:, :3]
        normals = self.normals[face]
        towards_us = np.where((normals * rays).sum(1) > 0, -1.0, 1.0)
        light = AMBIENT + SUN * np.maximum(towards_us * (normals @ self.sun), 0)
        shaded: Floats = colour * light[:, None]
        return shaded


def _weights(place: Floats) -> Floats:  # [R, 2] -> [R, 3]
    return np.column_stack([1 - place.sum(1), place])
