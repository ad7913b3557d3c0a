"""Pictures in a row as one file that moves: GIF, or MP4 by the extra `video`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nf2vec_cli.errors import UsageFault
from nf2vec_cli.shapes.write import write_bytes

RATE = 12  # pictures a second
COLOURS = 254  # of a GIF's 256: one is the ground's, and Pillow keeps one for what does not change
Picture = NDArray[np.uint8]  # [H, W, 3]


def require_film(suffix: str) -> None:
    """See that the package which a file type needs is installed.

    Raises:
        UsageFault: it is not.
    """
    if suffix == "mp4" and find_spec("imageio_ffmpeg") is None:
        raise UsageFault(
            "`--format mp4` needs imageio-ffmpeg, which is not installed",
            hint="`pip install 'nf2vec[video]'`, or `--format gif`",
        )


def write_film(pictures: Sequence[Picture], file: Path) -> None:
    """Write pictures of one size as GIF or MP4, for ever around; under another name first."""
    if file.suffix == ".mp4":
        _write_mp4(pictures, file)
        return
    # one palette for all: colours that change from picture to picture flicker
    strip = Image.fromarray(np.concatenate(pictures[:: max(1, len(pictures) // 8)]))
    palette = strip.quantize(COLOURS)
    drawn = (palette.getpalette() or [])[: 3 * COLOURS]
    palette.putpalette([*drawn, *pictures[0][0, 0].tolist()])  # else the ground is nearly white
    frames = [Image.fromarray(one).quantize(palette=palette) for one in pictures]
    stream = BytesIO()
    frames[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=1000 // RATE,
        loop=0,
    )
    write_bytes(stream.getvalue(), file)


def _write_mp4(pictures: Sequence[Picture], file: Path) -> None:
    height, width = pictures[0].shape[:2]
    even = [np.pad(one, ((0, height % 2), (0, width % 2), (0, 0)), "edge") for one in pictures]
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.stem}.part{file.suffix}")
    size = (width + width % 2, height + height % 2)
    film = import_module("imageio_ffmpeg").write_frames(
        str(part), size, fps=RATE, macro_block_size=2, ffmpeg_log_level="error"
    )
    film.send(None)
    for one in even:
        film.send(np.ascontiguousarray(one))
    film.close()
    part.replace(file)
