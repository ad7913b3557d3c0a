"""Where the work runs: a device by name, or a clear refusal."""

from __future__ import annotations

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
    """Tell whether products run in bfloat16; "auto": on a GPU that has it.

    Not on a CPU unless it is asked for: many have no bfloat16 units, and are slower with it.
    """
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"
