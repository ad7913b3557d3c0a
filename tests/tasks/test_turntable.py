import subprocess

import numpy as np
import pytest
from PIL import Image

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.tasks import turntable
from nf2vec_cli.tasks.turntable import require_film, write_film


def pictures(rng, count=5, size=(21, 30)):
    """A patch of many colours that goes to the right, on white."""
    made = [np.full((*size, 3), 255, np.uint8) for _ in range(count)]
    patch = rng.integers(0, 200, (8, 8, 3), np.uint8)
    for number, one in enumerate(made):
        one[5:13, 2 + 4 * number : 10 + 4 * number] = patch
    return made


def test_a_gif_goes_around_for_ever_on_a_white_ground(tmp_path, rng):
    made, file = pictures(rng), tmp_path / "new" / "a.gif"

    write_film(made, file)

    with Image.open(file) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (5, (30, 21), 0)
        for number, one in enumerate(made):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB")).astype(int)
            assert (shown[0] == 255).all()
            assert np.abs(shown - one).mean() < 8
    assert [path.name for path in file.parent.iterdir()] == ["a.gif"]


def test_an_mp4_has_the_pictures_with_sides_made_even(tmp_path, rng):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    made, file = pictures(rng), tmp_path / "a.mp4"

    write_film(made, file)

    line = [ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", file, "-f", "rawvideo"]
    read = subprocess.run([*line, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    shown = np.frombuffer(read.stdout, np.uint8).reshape(-1, 22, 30, 3).astype(int)
    assert len(shown) == 5
    for one, wanted in zip(shown, made, strict=True):
        assert np.abs(one[:21] - wanted).mean() < 20
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(turntable, "find_spec", lambda _: None)

    require_film("gif")
    with pytest.raises(UsageFault) as told:
        require_film("mp4")
    assert "pip install 'nf2vec[video]'" in str(told.value.hint)
