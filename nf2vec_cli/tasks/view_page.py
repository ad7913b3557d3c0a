"""Put a page together: template, style, scripts and data in one file that loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

PARTS = "view"  # folder of the package
SCRIPTS = {"three": "three.min.js", "page": "page.js"}
# Characters that end a script element, or begin a comment in one; JSON has them in strings only.
UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page_of(title: str, data: Mapping[str, Any], shapes: Sequence[str]) -> str:
    """Write the page.

    Args:
        title: of the browser's tab, any text.
        data: what page.js reads, JSON without NaN.
        shapes: one line of base64 for each object.
    """
    filled = {
        "title": escape(title),
        "style": _part("page.css"),
        "data": script_safe(data),
        "shapes": "\n".join(shapes),
        **{name: _part(file) for name, file in SCRIPTS.items()},
    }
    # one pass: what is filled in may hold braces of its own
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], _part("page.html"))


def script_safe(data: Mapping[str, Any]) -> str:
    """Write JSON that can stand in a script element, whatever its texts are."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(UNSAFE)


def _part(name: str) -> str:
    return (files("nf2vec_cli") / PARTS / name).read_text(encoding="utf-8")
