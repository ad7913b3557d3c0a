import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from near_init import SPEC, make_store, options, result
from PIL import Image

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.models.network import siren_init
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import view_map

QUICK = ("--resolution", "16", "--jobs", "1", "--json")
EVIL = "odd/</script><img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 22 embedded occupancy fields: two classes, one object of none, one copy."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    path = make_store(tmp_path_factory.mktemp("made") / "ds.zarr", kind="occ")
    store = open_store(path, mode="a")
    rows = store.register(
        [Entry(EVIL, "odd.ply"), Entry("shape/0~1", "0.ply", "shape", "train", "shape/0", 1)]
    )
    theta = siren_init(SPEC, seed=0).numpy()[None].repeat(2, 0)
    theta[0, -1] = -50  # nothing is inside: no mesh
    surface = np.full((2, SURFACE_POINTS, 3), 0.1, np.float32)
    store.commit(rows, theta, surface=surface, error=np.array([0.5, 0.5]))
    store.update(range(5), **{"class": ["box"] * 5})
    for line in (["train", str(path), *options()], ["encode", str(path)]):
        assert CliRunner().invoke(app, line).exit_code == 0
    return path


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    """A page of that store, and what the command told."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    file = tmp_path_factory.mktemp("page") / "new" / "page.html"
    outcome = CliRunner().invoke(app, ["view", str(made), "--out", str(file), *QUICK])
    return file, result(outcome)


def data_of(file):
    text = file.read_text(encoding="utf-8")
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    shapes = re.search(r'<script type="text/plain" id="shapes">(.*?)</script>', text, re.DOTALL)
    return json.loads(script[1]), shapes[1].split("\n")


def test_every_object_is_on_the_page_but_copies(page, made):
    file, told = page
    data, shapes = data_of(file)
    store = open_store(made)

    assert set(data["id"]) == {EVIL, *(f"shape/{n}" for n in range(20))}
    assert (told["objects"], told["map"]) == (21, "pca")
    assert (told["file"], told["bytes"]) == (str(file), file.stat().st_size)
    assert told["meshes"] == sum(map(bool, shapes)) > 0
    assert len(shapes) == 21
    assert shapes[data["id"].index(EVIL)] == ""  # empty, and on the map all the same
    assert data["encoder"] == told["encoder"]
    assert data["store"] == "ds.zarr"
    assert str(made.parent) not in file.read_text(encoding="utf-8")  # pages are passed around
    for i, name in enumerate(data["id"]):
        row = int(store.find([name])[0])
        assert data["classNames"][data["class"][i]] == (store.column("class")[row] or "none")
        assert data["error"][i] == pytest.approx(float(store.column("error")[row]), rel=1e-3)
        if name != EVIL:
            assert data["splitNames"][data["split"][i]] == store.column("split")[row]
        assert i not in data["neighbours"][i]
        assert len(set(data["neighbours"][i])) == 6
    place = np.array(data["place"])
    assert place.min() >= 0
    assert place.max() <= 1
    assert np.ptp(place, axis=0).max() == pytest.approx(1, abs=1e-3)
    assert data["splitNames"] == ["train", "val", "test"]
    assert data["classNames"] == ["shape", "box", "none"]


def test_shapes_come_from_weights_or_from_embeddings(run, made, page, tmp_path):
    out = tmp_path / "decoded.html"

    told = result(run("view", made, "--out", out, "--from", "embeddings", *QUICK))

    assert told["objects"] == 21
    data, shapes = data_of(out)
    assert data["from"] == "embeddings"
    assert data_of(page[0])[0]["from"] == "weights"
    assert shapes != data_of(page[0])[1]


def test_a_store_of_embeddings_alone_is_decoded(run, made, tmp_path):
    new, out = tmp_path / "gen.zarr", tmp_path / "page.html"
    quick = ("--set", "steps=5", "--set", "validate_every=5", "--set", "width=8", "--jobs", "1")
    copy = shutil.copytree(made, tmp_path / "ds.zarr")
    result(
        run("generate", copy, "--class", "shape", "--count", "7", "--out", new, *quick, "--json")
    )

    told = result(run("view", new, "--out", out, *QUICK))

    data, _ = data_of(out)
    assert told["objects"] == len(data["id"]) == 7
    assert data["from"] == "embeddings"
    assert data["error"] == [None] * 7
    assert data["splitNames"] == ["none"]
    refused = run("view", new, "--out", tmp_path / "no.html", "--from", "weights", *QUICK)
    assert refused.exit_code == 4
    assert "--from embeddings" in refused.stderr
    assert not (tmp_path / "no.html").exists()


def test_without_embeddings_the_way_to_them_is_named(run, tmp_path):
    store, out = make_store(tmp_path / "bare.zarr", kind="occ", count=3), tmp_path / "page.html"

    outcome = run("view", store, "--out", out, *QUICK)

    assert outcome.exit_code == 4
    assert f"nf2vec encode {store}" in outcome.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--encoder", "nobody"), 4, "no embeddings by encoder 'nobody'"),
        (("--map", "som"), 2, "som"),
        (("--resolution", "4"), 2, "--resolution"),
    ],
)
def test_what_cannot_be_is_refused(run, made, tmp_path, words, code, told):
    outcome = run("view", made, "--out", tmp_path / "page.html", *words)

    assert outcome.exit_code == code
    assert told in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_page(run, made, tmp_path):
    outcome = run("view", made, "--out", tmp_path, *QUICK)

    assert outcome.exit_code == 2
    assert f"--out {tmp_path / 'page.html'}" in outcome.stderr


def test_the_extra_is_named_where_it_is_missing(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr(view_map, "find_spec", lambda _: None)

    outcome = run("view", made, "--out", tmp_path / "page.html", "--map", "umap", *QUICK)

    assert outcome.exit_code == 2
    assert "pip install 'nf2vec[view]'" in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_two_pages_of_a_store_are_the_same(run, made, page, tmp_path):
    result(run("view", made, "--out", tmp_path / "again.html", *QUICK))

    assert (tmp_path / "again.html").read_bytes() == page[0].read_bytes()


NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


def browse(file, *words, fragment=""):
    """Open a page in a browser without a screen; give its document, and what it complained of."""
    found = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu-sandbox", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--enable-logging=stderr", "--log-level=0"),
            *("--window-size=1400,860", "--virtual-time-budget=4000"),
            # nothing can be found by name, so an address that is asked for would be complained of
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={file.parent / 'profile'}",
            *words,
            f"{file.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    said = [line for line in found.stderr.splitlines() if ":CONSOLE" in line]
    return found.stdout, said


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page in")
def test_a_browser_shows_the_map_and_an_object(page, tmp_path):
    file = Path(shutil.copy(page[0], tmp_path))
    data, shapes = data_of(file)
    wanted = next(i for i, shape in enumerate(shapes) if shape)

    document, said = browse(file, "--dump-dom", fragment=f"#id={data['id'][wanted]}")
    odd, odd_said = browse(file, "--dump-dom", fragment=f"#id={EVIL.replace('&', '%26')}")

    assert said == odd_said == []
    for text in (document, odd):
        assert 'data-points="21"' in text
        assert 'data-errors="0"' in text
        assert "data-drawn-ms=" in text
    assert f'data-selected="{data["id"][wanted]}"' in document
    assert f'<h2 id="name">{data["id"][wanted]}</h2>' in document
    beside = re.search(r'<div id="neighbours">(.*?)</div>', document)[1]
    titles = [unescape(text) for text in re.findall(r'title="([^"]+)"', beside)]
    assert titles == [data["id"][other] for other in data["neighbours"][wanted]]
    assert f"<dd>{data['classNames'][data['class'][wanted]]}</dd>" in document
    # an id that is markup is shown as text
    assert '<h2 id="name">odd/&lt;/script&gt;&lt;img src=x' in odd
    assert "<img src=x" not in re.sub(r"<script.*?</script>", "", odd, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page in")
def test_a_browser_draws_dots_and_a_mesh(page, tmp_path):
    file, picture = Path(shutil.copy(page[0], tmp_path)), tmp_path / "page.png"
    data, shapes = data_of(file)
    wanted = next(i for i, shape in enumerate(shapes) if shape)

    _, said = browse(file, f"--screenshot={picture}", fragment=f"#id={data['id'][wanted]}")

    assert said == []
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    coloured = pixels.max(2) - pixels.min(2) > 60
    assert coloured[60:800, 230:1030].sum() > 21 * 30  # the map
    assert coloured[60:370, 1060:1370].sum() > 2000  # the shape
