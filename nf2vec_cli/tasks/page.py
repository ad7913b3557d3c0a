"""One HTML page of pictures that holds all it shows: no other file, no script, no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE = """
body { font: 14px/1.35 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
section { display: flex; gap: 8px; overflow-x: auto; padding: 10px 0; border-top: 1px solid #ddd }
figure { flex: none; width: 180px; margin: 0; border: 2px solid #ccc; border-radius: 4px }
figure.query { border-color: #222 }
figure.same { border-color: #2a8a3e }
figure.other { border-color: #c0392b }
img { display: block; width: 100% }
figcaption { padding: 4px 6px; overflow-wrap: anywhere }
small { color: #666 }
"""


@dataclass(frozen=True)
class Card:
    """One object of a page. distance: None for a query. same: of the query's class, if known."""

    picture: NDArray[np.uint8]  # [H, W, 3]
    id: str
    class_name: str = ""
    distance: float | None = None
    same: bool | None = None


def write_page(lines: Sequence[Sequence[Card]], file: Path, *, title: str) -> None:
    """Write a page with a line of cards for each query, under another name first."""
    body = "\n".join(
        "<section>\n" + "\n".join(map(_figure, line)) + "\n</section>" for line in lines
    )
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>A query, then what is nearest to it, with the distance. "
        f"Green: of the query's class; red: of another.</p>\n{body}\n</body>\n</html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(file)


def _figure(card: Card) -> str:
    if card.distance is None:
        kind, last = "query", "query"
    else:
        kind = {None: "", True: "same", False: "other"}[card.same]
        last = f"{card.distance:.4f}"
    stream = BytesIO()
    Image.fromarray(card.picture).save(stream, format="PNG", optimize=True)
    picture = b64encode(stream.getvalue()).decode()
    name = escape(card.id)
    return (
        f'<figure class="{kind}"><img alt="{name}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{name}<br><small>{escape(card.class_name)} {last}</small>"
        "</figcaption></figure>"
    )
