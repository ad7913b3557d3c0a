"""Measure the kernels: plain PyTorch, what this machine runs, and the floor of three GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.gpu.ahead import Compiled, compile_ahead, variants
from nf2vec_cli.core.kernels import kernels_serve, triton_installed
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.tasks.kernel_cases import Case, cases
from nf2vec_cli.tasks.spread import one_thread

REPEATS = 5
ENOUGH, MOST = 0.01, 200  # seconds of a GPU that a figure is the mean of; runs, at most
KERNELS = ("mlp", "rows_pool", "decode", "march", "composite", "neighbours")
CHOOSE = {"mlp", "rows_pool", "decode"}  # kernels whose products have the asked precision
PRODUCT = {"cpu": 2_048, "cuda": 8_192}  # side of the matrices of the machine's own product


@dataclass(frozen=True)
class Gpu:
    """Of a datasheet: dense FLOP/s by the precision of products, and bytes/s of its memory."""

    name: str
    rate: dict[str, float]
    memory: float


HOPPER = {"float32": 66.9e12, "tf32": 494.7e12, "bfloat16": 989.4e12}
GPUS = (
    Gpu("a100", {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12}, 2.039e12),  # SXM, 80 GB
    Gpu("h100", HOPPER, 3.35e12),  # SXM
    Gpu("h200", HOPPER, 4.8e12),
)


@dataclass(frozen=True)
class KernelBench:
    """One kernel at one size, on this machine.

    runs: "kernel" on a GPU that triton serves, else "twin". precision: of products, ours, the
    twin's (PyTorch's own tf32, or autocast) and the machine's own; march, composite and neighbours
    choose none and are float32. twin_ms: plain PyTorch here. ours_ms: what the program runs here.
    times: how much cheaper. gflop, mbyte: of the work, each input read and each result written
    once. intensity: FLOP a byte. gflops: rate of ours. of_product: percent of the rate of the
    machine's own matrix product, measured in the same run. difference: largest, to the twin in
    float32, over its largest value. floor_*_ms: computed from datasheets in the asked precision,
    the longer of the time for the products and the time for the bytes; no GPU was measured for it.
    """

    kernel: str
    size: str
    device: str
    runs: str
    precision: str
    twin_ms: float
    ours_ms: float
    times: float
    gflop: float
    mbyte: float
    intensity: float
    gflops: float
    of_product: float
    difference: float
    floor_a100_ms: float
    floor_h100_ms: float
    floor_h200_ms: float


def bench_kernels(
    *,
    device: str = "auto",
    precision: str = "tf32",
    only: Collection[str] = (),
    progress: Progress | None = None,
) -> Iterator[KernelBench]:
    """Time each kernel and its twin in turn, on random inputs of the paper's sizes.

    Args:
        device: "cpu", "cuda", "cuda:N" or "auto".
        precision: of the kernels' products, "float32", "tf32" or "bfloat16"; a CPU computes in
            float32.
        only: kernels by name; all if empty.
        progress: told about each.

    Raises:
        UsageFault: a kernel is unknown.
        DeviceError: the device is not there.
    """
    if unknown := sorted(set(only) - set(KERNELS)):
        raise UsageFault(
            f"kernel {unknown[0]!r} is unknown",
            hint=f"`nf2vec bench kernels --kernel {KERNELS[0]}`; there are {', '.join(KERNELS)}",
        )
    target = open_device(device)
    alone = one_thread() if target.type == "cpu" else nullcontext()
    with alone, torch.no_grad(), progress or Silent() as teller:
        teller.start(len(KERNELS), "kernels")
        rate = cache(partial(_product_rate, target))
        for case in cases(target, precision):
            if not only or case.kernel in only:
                yield _measured(case, target, precision, rate)
            teller.advance(1, case.kernel)


def compiled_kernels(*, progress: Progress | None = None) -> Iterator[Compiled]:
    """Compile every kernel for GPUs that need not be here: registers, spills, shared memory.

    Raises:
        UsageFault: triton is not installed.
    """
    if not triton_installed():
        raise UsageFault("triton is not installed", hint="`pip install triton`")
    found = [(variant, target) for variant in variants() for target in variant.architectures]
    with progress or Silent() as teller:
        teller.start(len(found), "compile")
        for variant, architecture in found:
            yield compile_ahead(variant, architecture)
            teller.advance(1, variant.name)


def _measured(
    case: Case, device: torch.device, precision: str, rate: Callable[[str], float]
) -> KernelBench:
    used = precision if device.type == "cuda" and case.kernel in CHOOSE else "float32"
    with _products(device, "float32"):
        wanted = case.twin()
    found = case.ours()  # compiles what is to be compiled
    apart = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    runs = "kernel" if kernels_serve(found) else "twin"
    del wanted, found
    # in turn, so that what else the machine does falls on both
    pairs = []
    for _ in range(REPEATS):
        with _products(device, used):
            twin = _once(case.twin, device)
        pairs.append((twin, _once(case.ours, device)))
    twin, ours = (median(times) for times in zip(*pairs, strict=True))
    return KernelBench(
        kernel=case.kernel,
        size=case.size,
        device=str(device),
        runs=runs,
        precision=used,
        twin_ms=1e3 * twin,
        ours_ms=1e3 * ours,
        times=twin / ours,
        gflop=case.flops / 1e9,
        mbyte=case.bytes / 1e6,
        intensity=case.flops / case.bytes,
        gflops=case.flops / ours / 1e9,
        of_product=100 * case.flops / ours / rate(used),
        difference=apart,
        **{f"floor_{gpu.name}_ms": 1e3 * _floor(case, gpu, precision) for gpu in GPUS},
    )


def _floor(case: Case, gpu: Gpu, precision: str) -> float:
    return max(case.flops / gpu.rate[precision], case.bytes / gpu.memory)


@contextmanager
def _products(device: torch.device, precision: str) -> Iterator[None]:
    """Let PyTorch compute float32 products of a GPU in a precision, or, by autocast, in bfloat16.

    Kernels are told their precision; a CPU keeps its own setting.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _product_rate(device: torch.device, precision: str) -> float:
    """Measure the machine's own product of large matrices: FLOP/s."""
    side = PRODUCT[device.type]
    low = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(side, side, device=device, dtype=low)
    out = torch.empty_like(a)

    def multiply() -> Tensor:
        return torch.mm(a, a, out=out)

    with _products(device, precision):
        multiply()
        return 2 * side**3 / median(_once(multiply, device) for _ in range(REPEATS))


def _once(work: Callable[[], Any], device: torch.device) -> float:
    """Time a piece of work: on a GPU by its own clock, over so many that launches do not count."""
    if device.type == "cpu":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    times = 1
    while True:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            work()
        end.record()
        end.synchronize()
        one = float(begin.elapsed_time(end)) / 1e3 / times
        if times > 1 or one >= ENOUGH:
            return one
        times = min(MOST, 2 + int(ENOUGH / max(one, 1e-9)))
