"""Where the work runs: a device by name, or a clear refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from nf2vec_cli.errors import DeviceError, UsageFault


def open_device(name: str) -> torch.device:
    """Turn "cpu", "cuda", "cuda:N" or "auto" into a device that works.

    Raises:
        UsageFault: no such kind of device.
        DeviceError: CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageFault(f"device {name!r} is unknown", hint="use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageFault(f"device {name!r} is not supported", hint="use cpu, cuda or cuda:N")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            reason = (
                f"this machine has {found} CUDA devices"
                if torch.version.cuda
                else "this torch was built without CUDA"
            )
            raise DeviceError(f"device {name!r} is not available: {reason}", hint="`--device cpu`")
    return device


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Tell whether products run in bfloat16; "auto": where the device has units for it.

    A CPU without them is slower with it; with them (AVX-512 BF16, AMX) a step of training takes
    half the time (docs/performance.md).
    """
    if precision == "auto":
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        # torch 2.9 and later
        known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return precision == "bfloat16"


@contextmanager
def quick_products() -> Iterator[None]:
    """Let oneDNN compute float32 products on a CPU, where torch would take MKL; a GPU in tf32.

    On a CPU the same precision, 1.4 (128 units) to 1.8 times (512) as fast on an AMD CPU. One on
    which oneDNN would round to bfloat16 keeps MKL.
    """
    with _products("high" if _rounds() else "medium"):
        yield


@contextmanager
def _products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _rounds() -> bool:
    """Tell whether oneDNN multiplies float32 in bfloat16 (AMX does, 0.3 % off): by a product."""
    ones = torch.full((64, 64), 1 + 2**-12)
    with _products("medium"):
        return bool((ones @ ones)[0, 0] < 64 * (1 + 2**-12))
