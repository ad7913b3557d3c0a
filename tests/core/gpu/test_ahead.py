"""Every kernel is compiled for GPUs that are not here."""

import json
import os
import subprocess
import sys

import pytest

from nf2vec_cli.core.gpu.ahead import variants


@pytest.mark.slow
def test_kernels_compile_ahead_of_time_and_spill_nothing():
    # another process: here, kernels are made for the interpreter
    there = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nf2vec_cli.core.gpu.ahead"],
        capture_output=True,
        text=True,
        check=False,
        env=there,
    )
    assert child.returncode == 0, child.stderr
    found = [json.loads(line) for line in child.stdout.splitlines()]

    wanted = [(v.name, architecture) for v in variants() for architecture in v.architectures]
    assert [(f["name"], f["architecture"]) for f in found] == wanted
    assert {f["name"]: f["spilt"] for f in found if f["spilt"]} == {}
    # GPUs of 8.6 and 8.9 share 99 KB; from 9.0 on it is 227
    room = {80: 99 << 10, 90: 227 << 10, 100: 227 << 10}
    assert all(f["registers"] <= 255 and f["shared"] <= room[f["architecture"]] for f in found)
