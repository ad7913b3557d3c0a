import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "nightly.sh"


def nightly(folder, store):
    here = Path(sys.executable).parent
    return subprocess.run(
        ["bash", SCRIPT, folder, store],
        env=os.environ | {"PATH": f"{here}:{os.environ['PATH']}", "WAIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(sys.executable).parent / "nf2vec").exists(), reason="nf2vec is not installed"
)
def test_a_night_fits_what_is_new_embeds_it_and_reports_in_one_line(fitted, folder):
    shutil.copy(folder / "lamp" / "lamp.ply", folder / "lamp" / "another.ply")
    (folder / "broken.stl").write_bytes(b"")

    first, second = nightly(folder, fitted), nightly(folder, fitted)

    assert first.returncode == 7, first.stderr
    assert "1 fitted, 1 failed, 4 embedded, 0 as they were" in first.stdout
    assert second.returncode == 0, second.stderr
    assert "0 fitted, 0 failed, 0 embedded, 4 as they were" in second.stdout
    assert len(first.stdout.splitlines()) == len(second.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_night_without_shapes_says_so_and_ends_with_the_exit_code_of_fit(fitted, tmp_path):
    ended = nightly(tmp_path / "none", fitted)

    assert ended.returncode == 5
    assert ended.stdout.rstrip().endswith("fit stopped with exit code 5")
