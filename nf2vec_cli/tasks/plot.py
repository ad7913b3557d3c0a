"""Plots that explain themselves, drawn with Pillow: a heat map, and curves on a log scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE, GAP, LINE = 18, 16, 26  # pixels of a letter, between things, and of a line of text
PANEL = (520, 360)  # pixels of a chart
LONGEST = 32  # letters of a name; of a longer one the end is shown
MARGIN = (90, 40, 20, 70)  # left, top, right, bottom: room for axes around a chart's frame
CELLS = 480  # pixels of a heat map's side, about
INK, FAINT, GREY = (20, 20, 20), (225, 225, 225), (90, 90, 90)
# from near to far; even in lightness, and readable without colour (viridis)
MAP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
# Okabe and Ito's colours, which colour-blind readers tell apart
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167))


@dataclass(frozen=True)
class Curve:
    """A line of a chart; its values are positive."""

    label: str
    values: Sequence[float]


def heat_map(
    matrix: NDArray[np.float64], groups: Sequence[tuple[str, int]], title: str, unit: str
) -> Image.Image:
    """Draw a square matrix, its rows and columns in named groups of so many each.

    Args:
        matrix: [F, F], not negative.
        groups: name and length of each group, together F; white lines part them.
        title: what is shown.
        unit: what the scale beside it says.
    """
    groups = [(_short(name), count) for name, count in groups]
    cell = max(2, CELLS // len(matrix))
    side = cell * len(matrix)
    left = 2 * GAP + max(_width(name) for name, _ in groups)
    top = GAP + 2 * LINE
    image = _sheet(left + side + 2 * GAP + 130, top + side + GAP)
    draw = ImageDraw.Draw(image)
    draw.text((GAP, GAP), title, INK, font=_font())
    most = float(matrix.max()) or 1.0
    coloured = Image.fromarray(_colours(matrix / most))
    image.paste(coloured.resize((side, side), Image.Resampling.NEAREST), (left, top))
    at = 0
    for name, count in groups:
        middle = top + cell * (at + count / 2)
        draw.text((left - GAP // 2, middle), name, INK, font=_font(), anchor="rm")
        at += count
        if at < len(matrix):
            here = cell * at
            draw.line((left, top + here, left + side, top + here), "white", 3)
            draw.line((left + here, top, left + here, top + side), "white", 3)
    scale = Image.fromarray(_colours(np.linspace(1, 0, side)[:, None]))
    bar = left + side + 2 * GAP
    image.paste(scale.resize((24, side)), (bar, top))
    for tick in _ticks(0, most):
        y = top + side * (1 - tick / most)
        draw.line((bar + 24, y, bar + 30, y), INK, 2)
        draw.text((bar + 34, y), f"{tick:g}", INK, font=_font(), anchor="lm")
    draw.text((bar + 80, top - 6), unit, INK, font=_font(), anchor="rb")
    return image


def confusion_map(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str
) -> Image.Image:
    """Draw which class is taken for which, in percent of the true class (rows)."""
    counts = np.array(confusion, float)
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    return heat_map(shares, [(name, 1) for name in classes], title, "% of the class")


def chart(
    title: str, x: Sequence[float], curves: Sequence[Curve], *, across: str, up: str
) -> Image.Image:
    """Draw up to four curves over x, the height logarithmic; `across` and `up` name the axes."""
    image = _sheet(*PANEL)
    draw = ImageDraw.Draw(image)
    left, top = MARGIN[:2]
    right, bottom = PANEL[0] - MARGIN[2], PANEL[1] - MARGIN[3]
    values = [value for curve in curves for value in curve.values]
    room = (max(values) / min(values)) ** 0.06 * 1.05
    low, high = min(values) / room, max(values) * room

    def place(at: float, value: float) -> tuple[float, float]:
        share = (at - x[0]) / (x[-1] - x[0])
        height = log10(value / low) / log10(high / low)
        return left + share * (right - left), bottom - height * (bottom - top)

    for tick in _powers(low, high):
        y = place(x[0], tick)[1]
        draw.line((left, y, right, y), FAINT)
        draw.text((left - 8, y), f"{tick:g}", INK, font=_font(), anchor="rm")
    for tick in _ticks(x[0], x[-1]):
        at = place(tick, low)[0]
        draw.line((at, bottom, at, bottom + 6), INK, 2)
        draw.text((at, bottom + 10), f"{tick:g}", INK, font=_font(), anchor="mt")
    draw.rectangle((left, top, right, bottom), outline=INK)
    for curve, colour in zip(curves, COLOURS, strict=False):
        points = [place(at, value) for at, value in zip(x, curve.values, strict=True)]
        draw.line(points, colour, 3, joint="curve")
        for px, py in points:
            draw.ellipse((px - 4, py - 4, px + 4, py + 4), fill=colour)
    draw.text(((left + right) / 2, 8), _short(title), INK, font=_font(), anchor="mt")
    draw.text(((left + right) / 2, PANEL[1] - 8), across, INK, font=_font(), anchor="mb")
    turned = _sheet(bottom - top, LINE)
    ImageDraw.Draw(turned).text(((bottom - top) / 2, 2), up, INK, font=_font(), anchor="mt")
    image.paste(turned.rotate(90, expand=True), (2, top))
    return image


def legend(curves: Sequence[Curve], notes: Sequence[str]) -> Image.Image:
    """Say which colour is which curve, and what else a reader must know."""
    wide = max(_width(text) for text in [*notes, *(curve.label for curve in curves)])
    image = _sheet(wide + 50 + 2 * GAP, GAP + LINE * (len(curves) + len(notes)) + GAP)
    draw = ImageDraw.Draw(image)
    y = GAP
    for curve, colour in zip(curves, COLOURS, strict=False):
        draw.line((GAP, y + 11, GAP + 36, y + 11), colour, 3)
        draw.ellipse((GAP + 14, y + 7, GAP + 22, y + 15), fill=colour)
        draw.text((GAP + 50, y), curve.label, INK, font=_font())
        y += LINE
    for note in notes:
        draw.text((GAP, y + GAP // 2), note, GREY, font=_font())
        y += LINE
    return image


def write_png(rows: Sequence[Sequence[Image.Image]], file: Path) -> None:
    """Write pictures row by row as one PNG, under another name first."""
    width = max(sum(image.width for image in row) for row in rows)
    whole = _sheet(width, sum(max(image.height for image in row) for row in rows))
    top = 0
    for row in rows:
        left = 0
        for image in row:
            whole.paste(image, (left, top))
            left += image.width
        top += max(image.height for image in row)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    whole.save(part, format="PNG")
    part.replace(file)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(SIZE)  # comes with Pillow, so every machine draws the same


def _width(text: str) -> int:
    return int(_font().getlength(text)) + 1


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else "..." + name[3 - LONGEST :]


def _sheet(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _colours(share: NDArray[np.float64]) -> NDArray[np.uint8]:  # [A, B] in [0, 1] -> [A, B, 3]
    at = np.linspace(0, 1, len(MAP))
    channels = [np.interp(share, at, MAP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _ticks(low: float, high: float) -> list[float]:
    """Choose about five round numbers between two bounds."""
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Choose round numbers for a logarithmic axis: powers of ten, between them 2 and 5 if few."""
    factors = (1, 2, 5) if high / low < 2_000 else (1,)
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    every = [float(f"{factor * 10.0**power:.6g}") for power in powers for factor in factors]
    return [tick for tick in every if low <= tick <= high]
