"""Which tensors a Triton kernel serves; all others go to its PyTorch twin."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OLDEST = (8, 0)  # compute capability; for 7.5 the compiler spills 27 KB of registers a thread
REFERENCE = "reference"  # the value of NF2VEC_KERNELS that rules kernels out


def kernels_serve(x: Tensor) -> bool:
    """Tell whether kernels of `core.gpu` serve this tensor.

    They do on CUDA, where triton is installed and the GPU is of an A100's generation or later,
    unless NF2VEC_KERNELS=reference rules them out. The variable is looked up at each call: one that
    is set later counts.
    """
    return x.is_cuda and not ruled_out() and triton_installed() and new_enough(x.device)


def precision_of(x: Tensor) -> str:
    """Name the products that PyTorch would make of it: "float32", "tf32" or "bfloat16"."""
    if x.dtype == torch.bfloat16 or torch.is_autocast_enabled(x.device.type):
        return "bfloat16"
    return "float32" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def ruled_out() -> bool:
    """Tell whether the user wants the twins only."""
    return os.environ.get("NF2VEC_KERNELS") == REFERENCE


@cache
def triton_installed() -> bool:
    """Tell whether triton can be imported; it comes with torch for CUDA."""
    return find_spec("triton") is not None


@cache
def new_enough(device: torch.device) -> bool:
    """Tell whether kernels are written for a GPU."""
    return torch.cuda.get_device_capability(device) >= OLDEST
