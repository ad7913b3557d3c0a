"""How the kernels of narrow networks are launched, by the generation of the GPU."""

from __future__ import annotations

from typing import NamedTuple

VARIANTS = ()  # kernels of other modules


class Launch(NamedTuple):
    """Points of a tile, and how a program is compiled; stages > 1: matrices are fetched ahead."""

    tile: int
    warps: int = 8
    stages: int = 1


# by way, precision and whether there are more than 64 units: what spills no registers
LAUNCHES = {
    ("forward", "float32", False): Launch(32, stages=2),
    ("forward", "float32", True): Launch(32, stages=2),
    ("forward", "tf32", False): Launch(64, stages=2),
    ("forward", "tf32", True): Launch(64, stages=2),
    ("forward", "bfloat16", False): Launch(64, stages=2),
    ("forward", "bfloat16", True): Launch(64, stages=2),
    ("backward", "float32", False): Launch(16),
    ("backward", "float32", True): Launch(16),
    ("backward", "tf32", False): Launch(32),
    ("backward", "tf32", True): Launch(16),
    ("backward", "bfloat16", False): Launch(32),
    ("backward", "bfloat16", True): Launch(64),
}
# quick ones of up to 24 that were measured on an H100, among those that spill nothing there
ON_HOPPER = LAUNCHES | {
    ("forward", "tf32", False): Launch(128, warps=4),
    ("forward", "tf32", True): Launch(256, stages=2),
    ("forward", "bfloat16", False): Launch(128, warps=4),
    ("forward", "bfloat16", True): Launch(128, stages=2),
    ("backward", "tf32", False): Launch(32, warps=4),
    ("backward", "tf32", True): Launch(32, stages=2),
    ("backward", "bfloat16", False): Launch(32, warps=4, stages=2),
}


def launch_of(units: int, precision: str, way: str, *, hopper: bool) -> Launch:
    """Choose how a kernel is launched; "forward" or "backward" is its way."""
    return (ON_HOPPER if hopper else LAUNCHES)[way, precision, units > 64]
