"""Pictures from files as RGBA, read safely: never larger than we say, never of an odd format."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nf2vec_cli.errors import ConfigError, InputError
from nf2vec_cli.shapes.reasons import reasons

FORMATS = ("PNG", "JPEG")
# decoders that run nothing but themselves (Pillow gives EPS to another program)
TEXTURES = (*FORMATS, "BMP", "TGA", "GIF", "WEBP")
LARGEST = 4096  # pixels of a picture's side
HEAVIEST = 256 << 20  # bytes of a picture's file
TOLERANCE = 10  # of 255, in each channel: JPEG moves a flat colour by about as much
COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}
Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]


def colour_of(text: str) -> Colour:
    """Read a colour: white, black or #rrggbb.

    Raises:
        ConfigError: it is none.
    """
    name = text.strip().lower()
    if name in COLOURS:
        return COLOURS[name]
    digits = name.removeprefix("#")
    if len(digits) != 6 or not set(digits) <= set("0123456789abcdef"):
        raise ConfigError(f"background: {text!r} is no colour: white, black or #rrggbb")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def read_picture(path: Path, background: Colour | None = None) -> Pixels:  # [H, W, 4]
    """Read a PNG or JPEG file as 8-bit RGBA, colours not premultiplied.

    Args:
        path: the file.
        background: what becomes transparent in a picture without alpha, within a small tolerance.

    Raises:
        InputError: it cannot be read, is too large, or has no alpha and no background was given.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    if size > HEAVIEST:
        raise InputError(f"the file is too big: {size >> 20} MiB")
    data = path.read_bytes()
    if not data:
        raise InputError("the file is empty")
    with reasons(path.suffix.lower() or ".png"):
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:  # its text is an address
            raise InputError("it is no PNG or JPEG picture") from error
        pixels, clear = rgba_of(image, LARGEST)
    if clear:
        return pixels
    if background is None:
        raise InputError(
            "it has no alpha: nothing says where the object ends",
            hint="name the colour behind the object: `--set background=white` (black, #rrggbb)",
        )
    away = np.abs(pixels[..., :3].astype(np.int16) - np.array(background, np.int16)).max(-1)
    pixels[..., 3] = np.where(away <= TOLERANCE, 0, 255)
    return pixels


def rgba_of(image: Image.Image, largest: int) -> tuple[Pixels, bool]:
    """Decode an opened picture to RGBA [H, W, 4], and tell whether it has alpha of its own.

    Raises:
        InputError: a side is longer than `largest` pixels.
    """
    width, height = image.size
    if max(width, height) > largest:
        raise InputError(f"it has {width} x {height} pixels: {largest} are the most along a side")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8))
    clear = image.has_transparency_data
    whole = image.convert("RGBA") if clear else image.convert("RGB").convert("RGBA")
    return np.array(whole, np.uint8), clear


def readable(data: bytes) -> bool:
    """Tell whether a texture's file begins as one should; it is not decoded."""
    try:
        with reasons(".picture"), Image.open(BytesIO(data), formats=TEXTURES):
            return True
    except InputError:
        return False
