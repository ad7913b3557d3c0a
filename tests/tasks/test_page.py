import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
from PIL import Image

from nf2vec_cli.tasks.page import Card, write_page

PICTURE = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
NASTY = "<script>alert(\"1\")</script> & 'x'"


def test_a_page_holds_its_pictures_and_escapes_what_it_is_told(tmp_path):
    lines = [
        [
            Card(PICTURE, NASTY, "<b>"),
            Card(PICTURE, "a/x", "chair", 0.25, True),
            Card(PICTURE, "a/y", "lamp", 0.5, False),
            Card(PICTURE, "a/z", "", 0.75, None),
        ]
    ]

    write_page(lines, tmp_path / "new" / "page.html", title=NASTY)

    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert re.findall(r'<figure class="(\w*)"', text) == ["query", "same", "other", ""]
    assert "0.2500" in text
    data = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert len(data) == 4
    with Image.open(BytesIO(base64.b64decode(data[0]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), PICTURE)


def test_tags_are_closed(tmp_path):
    write_page([[Card(PICTURE, "a"), Card(PICTURE, "b", "c", 1.0)]] * 2, tmp_path / "p", title="t")
    open_tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):  # noqa: ARG002
            if tag not in ("meta", "img", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed((tmp_path / "p").read_text())
    assert open_tags == []
