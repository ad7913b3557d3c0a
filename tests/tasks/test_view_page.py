import json
import re
from html.parser import HTMLParser

from nf2vec_cli.tasks.view_page import page_of

EVIL = "</script><script>alert(1)</script><!-- <script> {{three}} & \u2028 \"'"


class Reader(HTMLParser):
    """Scripts by id, and every address that an element names."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.addresses, self.inside, self.title = {}, [], None, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        if tag == "script":
            self.key = dict(attrs).get("id", f"code {len(self.scripts)}")
            self.scripts[self.key] = ""
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "data")]

    def handle_endtag(self, tag):  # noqa: ARG002
        self.inside = None

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts[self.key] += text
        elif self.inside == "title":
            self.title += text


def test_texts_of_the_store_stay_texts():
    page = page_of(EVIL, {"id": [EVIL], EVIL: 1}, ["", "AAAA", ""])

    found = Reader(page)
    assert list(found.scripts) == ["data", "shapes", "code 2", "code 3"]
    assert json.loads(found.scripts["data"]) == {"id": [EVIL], EVIL: 1}
    assert found.scripts["shapes"].split("\n") == ["", "AAAA", ""]
    assert found.title == EVIL
    assert "<" not in found.scripts["data"]


def test_nothing_is_loaded_from_anywhere():
    page = page_of("ds", {}, [])

    assert Reader(page).addresses == ["data:,"]
    assert "default-src 'none'" in page
    ours = "".join(text for key, text in Reader(page).scripts.items() if key != "code 2")
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", ours)
    # the library names one address, which is a name of SVG's and not a place
    assert set(re.findall(r"https?://[^\"'`\s]+", page)) == {"http://www.w3.org/1999/xhtml"}


def test_the_library_comes_with_its_licence():
    from importlib.resources import files

    folder = files("nf2vec_cli") / "view"
    assert "MIT License" in (folder / "three.LICENSE").read_text(encoding="utf-8")
    assert "three.js authors" in (folder / "three.LICENSE").read_text(encoding="utf-8")
    assert "SPDX-License-Identifier: MIT" in (folder / "three.min.js").read_text(encoding="utf-8")
