import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from nf2vec_cli.core.surface import zero_surface
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.tasks.field_function import FieldFunction

spec = NetworkSpec(hidden=128, layers=4)
field = FieldFunction(siren_init(spec, seed=0).numpy(), spec, "sdf")


def torus(coords):
    field.values(coords)  # what a network takes
    ring = np.hypot(coords[:, 0], coords[:, 1]) - 0.6
    return np.clip(np.hypot(ring, coords[:, 2]) - 0.25, -0.1, 0.1).astype(np.float32)


found = zero_surface(torus, 512, reach=0.1)
print(len(found.faces), found.evaluated, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_surface_of_512_cubed_needs_less_than_a_gigabyte_and_a_half():
    child = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    faces, share, peak = (float(word) for word in child.stdout.split())

    assert faces > 500_000
    assert share < 0.05
    assert peak < 1.5 * 2**20  # KiB
