"""Kernels beside their twins: what is counted, and what is told."""

import json
from contextlib import contextmanager

import pytest
import torch

from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.tasks import bench_kernels
from nf2vec_cli.tasks.kernel_cases import Case, mlp_step, mlp_values


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


def test_both_ways_of_a_step_give_one_gradient(draw):
    case = mlp_step(NetworkSpec(hidden=16, layers=2, omega=30.0), 2, "float32", draw)

    torch.testing.assert_close(case.ours(), case.twin(), rtol=1e-4, atol=1e-6)
    # 3 x 16 + 16 x 16 + 16 products a point, three times, but once less for the first layer
    assert case.flops == 2 * 2 * 1_250 * (3 * (48 + 256 + 16) - 48)
    # parameters are read and their gradient is written; three coordinates and a target a point
    assert case.bytes == 4 * (2 * 2 * (48 + 16 + 256 + 16 + 16 + 1) + 2 * 1_250 * 4)


def test_both_ways_give_one_field(draw):
    case = mlp_values(NetworkSpec(hidden=16, layers=2, omega=30.0), 1, 100, "float32", draw)

    torch.testing.assert_close(case.ours(), case.twin()[0], rtol=1e-4, atol=1e-6)
    assert case.flops == 2 * 100 * (48 + 256 + 16)


def test_a_row_tells_rates_and_floors(run, monkeypatch):
    def two(device, _):
        x = torch.ones(8, device=device)
        yield Case("mlp", "tiny", 3.12e12, 4.078e9, lambda: x, lambda: x * 1.5)
        yield Case("decode", "not asked for", 1, 1, lambda: x, lambda: x)

    monkeypatch.setattr(bench_kernels, "cases", two)
    monkeypatch.setattr(bench_kernels, "PRODUCT", {"cpu": 64})

    outcome = run(
        *("bench", "kernels", "--kernel", "mlp", "--device", "cpu"),
        *("--precision", "bfloat16", "--json"),
    )

    assert outcome.exit_code == 0
    (row,) = map(json.loads, outcome.stdout.splitlines())
    assert (row["kernel"], row["runs"], row["precision"]) == ("mlp", "twin", "float32")
    assert row["difference"] == pytest.approx(0.5)
    assert row["gflops"] == pytest.approx(3.12e6 / row["ours_ms"], rel=1e-6)
    assert row["times"] == pytest.approx(row["twin_ms"] / row["ours_ms"])
    assert row["intensity"] == pytest.approx(3.12e12 / 4.078e9)
    # products take 10 ms of an A100, its memory 2; an H100 takes 3.154 ms
    assert row["floor_a100_ms"] == pytest.approx(10)
    assert row["floor_h100_ms"] == pytest.approx(1e3 * 3.12e12 / 989.4e12)


@pytest.mark.parametrize(
    ("kernel", "asked", "used", "setting"),
    [
        ("mlp", "float32", "float32", "highest"),
        ("decode", "tf32", "tf32", "high"),
        ("rows_pool", "bfloat16", "bfloat16", "highest"),
        ("neighbours", "tf32", "float32", "highest"),
    ],
)
def test_on_a_gpu_all_products_have_one_precision(monkeypatch, kernel, asked, used, setting):
    """Stand-ins for a GPU: what counts is which settings the twin and ours see."""
    lowered, twin, ours, rates = [False], [], [], []

    @contextmanager
    def autocast(device, dtype, *, enabled):
        assert (device, dtype) == ("cuda", torch.bfloat16)
        lowered.append(enabled)
        yield
        lowered.pop()

    def way(seen):
        seen.append((torch.get_float32_matmul_precision(), lowered[-1]))
        return torch.ones(2)

    def rate(precision):
        rates.append(precision)
        return 1.0

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(bench_kernels, "_once", lambda work, _: len(work()))
    before = torch.get_float32_matmul_precision()
    case = Case(kernel, "tiny", 1, 1, lambda: way(twin), lambda: way(ours))

    row = bench_kernels._measured(case, torch.device("cuda"), asked, rate)

    assert (row.precision, rates) == (used, [used])
    # the difference is to float32; the times are those of the precision
    assert twin == [("highest", False)] + [(setting, used == "bfloat16")] * bench_kernels.REPEATS
    assert set(ours) == {(before, False)}
    assert torch.get_float32_matmul_precision() == before


def test_the_machines_own_product_has_the_precision(monkeypatch):
    kinds = []
    multiply = torch.mm

    def mm(a, b, out):
        kinds.append((a.dtype, out.dtype))
        return multiply(a, b, out=out)

    monkeypatch.setattr(bench_kernels, "PRODUCT", {"cpu": 4})
    monkeypatch.setattr(torch, "mm", mm)

    for precision in ("tf32", "bfloat16"):
        assert bench_kernels._product_rate(torch.device("cpu"), precision) > 0

    assert set(kinds[: len(kinds) // 2]) == {(torch.float32,) * 2}
    assert set(kinds[len(kinds) // 2 :]) == {(torch.bfloat16,) * 2}


def test_an_unknown_kernel_is_refused(run):
    outcome = run("bench", "kernels", "--kernel", "mpl")

    assert outcome.exit_code == 2
    assert "'mpl' is unknown" in outcome.stderr
    assert "--kernel mlp" in outcome.stderr


def test_compiling_needs_triton(run, monkeypatch):
    monkeypatch.setattr(bench_kernels, "triton_installed", lambda: False)

    outcome = run("bench", "kernels", "--compile")

    assert outcome.exit_code == 2
    assert "pip install triton" in outcome.stderr


@pytest.mark.slow
def test_every_kernel_equals_its_twin_at_the_papers_sizes():
    found = list(bench_kernels.bench_kernels(device="cpu"))

    assert {row.kernel for row in found} == set(bench_kernels.KERNELS)
    assert all(row.difference < 1e-4 for row in found)
