"""The fused sine and cosine for CPUs: numba, which vectorises the loop for the machine at hand."""

from __future__ import annotations

import numba
import numpy as np
from numpy import float32 as f32

PI_HIGH = f32(3.140625)  # few bits, so that k * PI_HIGH is exact (Cody and Waite)
PI_LOW = f32(np.pi - 3.140625)
PER_PI = f32(1 / np.pi)
ONE, HALF, FOUR = f32(1), f32(0.5), f32(4)
# Chebyshev interpolants of sin(r)/r and cos(r) in r^2 on [-pi/2, pi/2]: error 1e-8 and 3e-10
S0, S1, S2, S3, S4 = (
    f32(c / np.pi ** (2 * k + 1))
    for k, c in enumerate((3.14159264, -5.16771008, 2.55007739, -0.598290411, 0.0776559122))
)
C0, C1, C2, C3, C4, C5 = (
    f32(c / np.pi ** (2 * k))
    for k, c in enumerate((1.0, -4.93480214, 4.05870915, -1.33521195, 0.234937068, -0.024395932))
)


@numba.njit(
    "void(f4[::1], f4[::1])",
    fastmath={"contract", "nsz", "arcp"},
    error_model="numpy",
    nogil=True,
    cache=True,
)
def sincos(x, cosine):  # type: ignore[no-untyped-def]
    """Replace x [n] by its sine and fill cosine [n]; absolute error below 2e-6 for |x| < 1000."""
    for i in range(x.size):
        k = np.floor(x[i] * PER_PI + HALF)
        r = x[i] - k * PI_HIGH - k * PI_LOW
        odd = k * HALF - np.floor(k * HALF)  # 0 or 1/2
        sign = ONE - FOUR * odd
        t = r * r
        x[i] = sign * r * (S0 + t * (S1 + t * (S2 + t * (S3 + t * S4))))
        cosine[i] = sign * (C0 + t * (C1 + t * (C2 + t * (C3 + t * (C4 + t * C5)))))
