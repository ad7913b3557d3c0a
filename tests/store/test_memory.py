"""Memory does not grow with the number of objects."""

import subprocess
import sys

import pytest

WORK = """
import resource, sys
import numpy as np
from pathlib import Path
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store

path, count = Path(sys.argv[1]), int(sys.argv[2])
blocks = [128] * 392 + [1]
init = np.zeros(sum(blocks), np.float32)
create_store(path, field="sdf", network={}, init=init, blocks=blocks, codec="compact", bits=8,
             batch=64, config={}, versions={})
store = open_store(path, mode="a")
rows = store.register([Entry(f"c/x{i}", f"c/x{i}.ply") for i in range(count)])
rng = np.random.default_rng(0)
for start in range(0, count, 64):
    part = rows[start : start + 64]
    store.commit(part, rng.standard_normal((len(part), len(init)), dtype=np.float32),
                 transform=np.ones((len(part), 4)))
assert check_store(path).sound
for start in range(0, count, 64):
    store.weights(rows[start : start + 64])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_is_flat_from_200_to_2000_objects(tmp_path):
    peaks = {}
    for count in (200, 2000):
        line = [sys.executable, "-c", WORK, str(tmp_path / str(count)), str(count)]
        child = subprocess.run(line, capture_output=True, text=True, check=True)
        peaks[count] = int(child.stdout) / 1024  # MiB

    print(peaks)  # noqa: T201
    assert peaks[2000] < peaks[200] + 40
