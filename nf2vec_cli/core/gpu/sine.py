"""Sine and cosine in kernels: a range reduction of our own, then polynomials.

`tl.sin` reduces any argument, at the price of kilobytes of spilt registers a thread; the hardware's
`sin.approx` cannot be run without a GPU. This is the same arithmetic everywhere, and its dozen
multiply-adds cost about what the special unit takes.
"""

from __future__ import annotations

import triton
import triton.language as tl

PER_TURN = tl.constexpr(0.15915494309189535)  # 1 / (2 pi)
TURN_HIGH = tl.constexpr(6.28125)  # few bits, so that k * TURN_HIGH is exact (Cody and Waite)
TURN_LOW = tl.constexpr(0.0019353071795864769)
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: what is added to it is rounded to an integer
PI = tl.constexpr(3.141592653589793)
HALF_PI = tl.constexpr(1.5707963267948966)
# Chebyshev interpolant of sin(r)/r in r^2 on [-pi/2, pi/2], as in `core.cpu.sine`: error 1e-8
S0 = tl.constexpr(3.14159264 / 3.141592653589793)
S1 = tl.constexpr(-5.16771008 / 3.141592653589793**3)
S2 = tl.constexpr(2.55007739 / 3.141592653589793**5)
S3 = tl.constexpr(-0.598290411 / 3.141592653589793**7)
S4 = tl.constexpr(0.0776559122 / 3.141592653589793**9)

VARIANTS = ()  # functions of other kernels


@triton.jit
def phase(z):
    """Take whole turns off angles, |z| < 3e4: radians in [-pi, pi]."""
    k = (z * PER_TURN + ROUND) - ROUND
    return z - k * TURN_HIGH - k * TURN_LOW


@triton.jit
def phase_of_half_turns(x):
    """Turn multiples of pi into a phase: whole turns come off before that factor, exactly."""
    return (x - 2 * tl.floor(x / 2 + 0.5)) * PI


@triton.jit
def sine(r):
    """Give the sine of a phase; absolute error below 1e-6."""
    a = tl.abs(r)
    s = _odd(tl.minimum(a, -a + PI))
    return tl.where(r < 0, -s, s)


@triton.jit
def cosine(r):
    """Give the cosine of a phase; absolute error below 1e-6."""
    return _odd(-tl.abs(r) + HALF_PI)


@triton.jit
def sine_or_cosine(r, is_cosine):
    """Give the sine of a phase, or where asked the cosine, by one polynomial."""
    a = tl.abs(r)
    folded = tl.minimum(a, -a + PI)
    return _odd(tl.where(is_cosine, -a + HALF_PI, tl.where(r < 0, -folded, folded)))


@triton.jit
def _odd(r):
    t = r * r
    return ((((t * S4 + S3) * t + S2) * t + S1) * t + S0) * r
