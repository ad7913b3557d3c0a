import numpy as np
import pytest

REACH = 0.1


def ball(x):
    size = np.linalg.norm(x, axis=1)
    away = size - 0.8
    return np.abs(away), x / np.maximum(size, 1e-9)[:, None] * np.sign(away)[:, None]


def bowl(x):
    """Lower half of a sphere: an open surface with a rim."""
    flat = x * [1, 1, 0] / np.maximum(np.hypot(x[:, 0], x[:, 1]), 1e-9)[:, None]
    down = x / np.maximum(np.linalg.norm(x, axis=1), 1e-9)[:, None]
    offset = x - 0.8 * np.where(x[:, 2:] < 0, down, flat)
    size = np.linalg.norm(offset, axis=1)
    return size, offset / np.maximum(size, 1e-9)[:, None]


def torus(x):
    across = np.maximum(np.hypot(x[:, 0], x[:, 1]), 1e-9)
    offset = x - 0.6 * (x * [1, 1, 0]) / across[:, None]
    size = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)
    away = size - 0.25
    return np.abs(away), offset / size[:, None] * np.sign(away)[:, None]


class Field:
    """A distance field as training leaves it: rounded at the surface, clipped, a factor off."""

    def __init__(self, shape, rounding=0.0, factor=1.0):
        self.shape, self.rounding, self.factor, self.evaluated = shape, rounding, factor, 0

    def slopes(self, coords):
        assert coords.dtype == np.float32
        self.evaluated += len(coords)
        away, gradient = self.shape(coords.astype(np.float64))
        value = np.sqrt(away**2 + self.rounding**2)
        gradient = self.factor * gradient * (away / np.maximum(value, 1e-12))[:, None]
        value = self.factor * value
        gradient[value > REACH] = 0
        return np.minimum(value, REACH).astype(np.float32), gradient.astype(np.float32)

    def evaluate(self, coords):
        return self.slopes(coords)[0]


@pytest.fixture
def unsigned():
    """Make an unsigned distance field of a named shape in unit space, clipped to 0.1."""

    def make(name, rounding=0.0, factor=1.0):
        return Field({"ball": ball, "bowl": bowl, "torus": torus}[name], rounding, factor)

    return make
