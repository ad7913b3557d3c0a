"""Triton bodies of the ops in `core`, under the same file names.

They are imported only when a CUDA tensor arrives. Each module names its kernels at their default
tiles in `VARIANTS`, which `ahead` compiles without a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

# what `tl.dot` calls a precision of products: three of tf32 are as exact as one of float32, and
# products of bfloat16 are what they are
DOT = {"float32": "tf32x3", "tf32": "tf32", "bfloat16": "ieee"}


@dataclass(frozen=True)
class Tile:
    """What a program of a product holds at once: rows, columns and what is summed; its warps."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int

    @property
    def blocks(self) -> dict[str, int]:
        return {name: size for name, size in asdict(self).items() if name.startswith("block")}


def on_hopper(x: Tensor) -> bool:
    """Tell whether the tensor is on an H100 or H200, where tiles were measured."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device)[0] == 9


def on_device_of(x: Tensor) -> AbstractContextManager[None]:
    """Make the tensor's GPU the current one: Triton launches there. Nothing on a CPU."""
    guard: AbstractContextManager[None] = torch.cuda.device_of(x)
    return guard
