"""A block that shows which way it is turned: six colours, three lengths, off the origin."""

import numpy as np
import trimesh

LOW, HIGH = np.array([1.0, -2.0, 0.5]), np.array([2.0, -0.5, 2.7])
# by the side's direction: -x +x -y +y -z +z; no two are alike, and none is grey
COLOURS = {
    (-1, 0, 0): (200, 40, 40),
    (1, 0, 0): (40, 200, 40),
    (0, -1, 0): (40, 40, 200),
    (0, 1, 0): (200, 200, 40),
    (0, 0, -1): (40, 200, 200),
    (0, 0, 1): (200, 40, 200),
}


def block() -> trimesh.Trimesh:
    mesh = trimesh.creation.box(bounds=[LOW, HIGH])
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    mesh.visual.face_colors = [(*COLOURS[side], 255) for side in sides(mesh)]
    return mesh


def sides(mesh) -> list[tuple[int, ...]]:
    """Give each face's direction."""
    return [tuple(int(n) for n in np.rint(normal)) for normal in mesh.face_normals]


def unshared(mesh) -> trimesh.Trimesh:
    """Give each face corners of its own, which carry its colour."""
    colours = np.repeat(mesh.visual.face_colors, 3, axis=0)
    corners = mesh.vertices[mesh.faces].reshape(-1, 3)
    faces = np.arange(len(corners)).reshape(-1, 3)
    return trimesh.Trimesh(corners, faces, vertex_colors=colours, process=False)


def project(points, pose, focal, size):
    """Where points [M, 3] are in a picture, [M, 2] pixels: x to the right, y down.

    Written for the tests: through the inverse of the 4 x 4 pose, not as the program does it.
    """
    whole = np.vstack([pose, [0, 0, 0, 1]])
    seen = (np.linalg.inv(whole) @ np.column_stack([points, np.ones(len(points))]).T).T
    away = -seen[:, 2]
    assert (away > 0).all()  # they are before the camera
    return np.column_stack(
        [size / 2 + focal * seen[:, 0] / away, size / 2 - focal * seen[:, 1] / away]
    )


def corners() -> np.ndarray:
    return (
        np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (HIGH - LOW) + LOW
    )
