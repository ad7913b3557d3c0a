"""Pictures of a coloured ball from all sides, by the equation of a sphere: no renderer of ours."""

import numpy as np

from nf2vec_cli.shapes.views import Views

CENTRE, RADIUS = np.array([0.3, -0.2, 0.1]), 0.4
ANGLE = 0.6911112


def look_at(position):
    """Give a camera's pose, [3, 4], OpenGL axes: it looks along its -z at the origin, z is up."""
    back = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], axis=1)


def ball_views(count=12, held=3, size=32, distance=3.0, seed=0):
    """Give `count` views to fit and `held` others; colour by which way the surface faces."""
    rng = np.random.default_rng(seed)
    focal = 0.5 * size / np.tan(0.5 * ANGLE)
    poses, pixels = [], []
    for _ in range(count + held):
        up = rng.uniform(-0.5, 1.2)
        turn = rng.uniform(0, 2 * np.pi)
        position = distance * np.array(
            [np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), np.sin(up)]
        )
        pose = look_at(position)
        picture = np.zeros((size, size, 4), np.uint8)
        for row in range(size):
            for column in range(size):
                x, y = (column + 0.5 - size / 2) / focal, -(row + 0.5 - size / 2) / focal
                way = pose[:, :3] @ np.array([x, y, -1.0])
                way /= np.linalg.norm(way)
                away = position - CENTRE
                half = way @ away
                root = half**2 - (away @ away - RADIUS**2)
                if root > 0:
                    normal = (away + (-half - root**0.5) * way) / RADIUS
                    picture[row, column] = [*(127.5 + 127.5 * normal), 255]
        poses.append(pose)
        pixels.append(picture)
    return Views(
        np.stack(pixels),
        np.stack(poses).astype(np.float32),
        np.full(count + held, focal, np.float32),
        np.arange(count + held) >= count,
        np.array([0.0, 0, 0, 1]),
        (),
    )
