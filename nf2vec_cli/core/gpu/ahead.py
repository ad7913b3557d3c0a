"""Kernels compiled ahead of time, for GPUs that need not be here: registers, spills, memory.

`python -m nf2vec_cli.core.gpu.ahead 80 90` prints a JSON line a kernel and architecture.
"""

from __future__ import annotations

import json
import re
import subprocess  # nosec B404 - see below
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

ARCHITECTURES = (80, 90, 100)  # A100; H100 and H200; B200
# what the compiler says of a kernel, in bytes but for the registers, which are a thread's
SAID = {
    "registers": r"Used (\d+) registers",
    "stored": r"(\d+) bytes spill stores",
    "loaded": r"(\d+) bytes spill loads",
}


@dataclass(frozen=True)
class Variant:
    """A kernel at one tile: what the compiler must know of its arguments.

    signature: type of each argument by name ("*fp32", "i32", ...; "constexpr" for constants).
    constants: value of each constant. warps, stages, fusion: as at the launch. architectures: that
    it is meant for.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3
    fusion: bool = True  # of a product and a sum, which then are rounded once
    architectures: tuple[int, ...] = ARCHITECTURES


@dataclass(frozen=True)
class Compiled:
    """What a kernel takes of a multiprocessor: registers a thread; bytes spilt and shared."""

    name: str
    architecture: int
    warps: int
    registers: int
    spilt: int
    shared: int


def variants() -> Iterator[Variant]:
    """Give every kernel of this package at its default tiles."""
    for module in iter_modules([str(Path(__file__).parent)]):
        if module.name != "ahead":
            yield from import_module(f"nf2vec_cli.core.gpu.{module.name}").VARIANTS


def compile_ahead(variant: Variant, architecture: int) -> Compiled:
    """Compile a kernel for sm_80, sm_90, ... without such a GPU.

    Raises:
        RuntimeError: the assembler refuses what the compiler wrote.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # as at a launch: what torch allocates lies at multiples of 16 bytes, so loads can be wide
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, kind in enumerate(variant.signature.values())
        if kind.startswith("*")
    }
    built = triton.compile(
        ASTSource(variant.kernel, variant.signature, variant.constants, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={
            "num_warps": variant.warps,
            "num_stages": variant.stages,
            "enable_fp_fusion": variant.fusion,
        },
    )
    said = _assembled(built.asm["ptx"], Path(triton.__file__).parent, variant.fusion)
    return Compiled(
        variant.name,
        architecture,
        variant.warps,
        said["registers"],
        said["stored"] + said["loaded"],
        int(built.metadata.shared),
    )


def _assembled(ptx: str, triton: Path, fusion: bool) -> dict[str, int]:
    """Assemble once more, for what the assembler says of it."""
    target = re.findall(r"\.target\s+(sm_\w+)", ptx)[0]
    # the plain one refuses the version of PTX that triton writes for sm_90 and later
    name = "ptxas" if target == "sm_80" else "ptxas-blackwell"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        done = subprocess.run(  # nosec B603 - triton's own ptxas, on a file made here
            [
                triton / "backends" / "nvidia" / "bin" / name,
                "-v",
                f"--fmad={str(fusion).lower()}",
                f"-arch={target}",
                source,
                "-o",
                Path(folder) / "kernel.cubin",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{name} refuses the kernel: {done.stderr.strip()}")
    return {what: int(re.findall(said, done.stderr)[0]) for what, said in SAID.items()}


def main(architectures: list[int]) -> None:
    """Compile every kernel for these architectures, and print a JSON line for each."""
    for variant in variants():
        for architecture in sorted({*variant.architectures} & {*architectures}):
            found = asdict(compile_ahead(variant, architecture))
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main([int(name) for name in sys.argv[1:]] or list(ARCHITECTURES))
