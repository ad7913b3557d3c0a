"""Pictures of one object and the cameras that took them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Views:
    """Pictures of one object and the cameras that took them."""

    pixels: NDArray[np.uint8]
    poses: NDArray[np.float32]
    focal: NDArray[np.float32]
    held: NDArray[np.bool_]
    box: NDArray[np.float64]
    notes: tuple[str, ...] = ()
