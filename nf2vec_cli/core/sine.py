"""Sine and cosine in place, in one pass where numba is installed (extra `fast`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.core.kernels import ruled_out


def sin_(x: Tensor) -> Tensor:
    """Replace x, float32 radians, by its sine."""
    return x.sin_()


def sincos_(x: Tensor, cosine: Tensor) -> None:
    """Replace x, in radians, by its sine and put its cosine into `cosine`."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32
    kernel = None if plain else _fused()
    if kernel is not None and x.is_contiguous() and cosine.is_contiguous():
        kernel(x.view(-1).numpy(), cosine.view(-1).numpy())
    else:
        torch.cos(x, out=cosine)
        x.sin_()


@cache
def _fused() -> Callable[[Any, Any], None] | None:
    if ruled_out():
        return None
    try:
        from nf2vec_cli.core.cpu.sine import sincos
    except (ImportError, RuntimeError):  # not installed, or no folder for its compiled code
        return None
    return sincos


def fused_sine_available() -> bool:
    """Tell whether CPU fits use the fused kernel."""
    return _fused() is not None
