"""What a file may not do: run code, read or write elsewhere, fetch, or talk in markup."""

import io
import json
import os
import pickle
import shutil
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import zarr

from nf2vec_cli.errors import InputError, StoreError
from nf2vec_cli.progress import Bar, Lines
from nf2vec_cli.shapes.discover import discover
from nf2vec_cli.shapes.mesh import load_mesh
from nf2vec_cli.shapes.side_files import SideFiles, side_file
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.damage import sound_array
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.page import Card, write_page
from nf2vec_cli.tasks.view_page import page_of

FIXTURES = Path(__file__).parent / "store" / "fixtures"
SCRIPT = '"><script>alert(1)</script><!--'
COLOUR = "\x1b[31mred\x1b]0;title\x07[bold red]x[/bold red]"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """A path that exists when a payload has run; it does so where pickles are read."""
    target = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists()
    target.rmdir()
    yield target
    assert not target.exists(), "a pickle ran"


@pytest.fixture
def unpacked(tmp_path):
    def unpack(name):
        with tarfile.open(FIXTURES / f"{name}.tar.xz") as packed:
            packed.extractall(tmp_path, filter="data")
        return tmp_path / f"{name}.zarr"

    return unpack


def as_numpy(payload, save=np.save):
    stream = io.BytesIO()
    save(stream, np.array([payload, payload], dtype=object), allow_pickle=True)
    return stream.getvalue()


def as_npz(payload):
    stream = io.BytesIO()
    np.savez(stream, points=np.array([payload], dtype=object))
    return stream.getvalue()


def as_torch(payload, **options):
    stream = io.BytesIO()
    torch.save({"layers.0.weight": torch.zeros(3, 3), "evil": payload}, stream, **options)
    return stream.getvalue()


def plant(folder, payload):
    """Put a payload into a folder under every name that may be read."""
    folder.mkdir()
    for suffix in ("pkl", "ply", "stl", "glb", "xyz", "pcd", "binvox", "safetensors", "h5"):
        (folder / f"plain.{suffix}").write_bytes(pickle.dumps(payload))
    for name, data in {
        "array.npy": as_numpy(payload),
        "array.npz": as_npz(payload),
        "new.pth": as_torch(payload),
        "old.pt": as_torch(payload, _use_new_zipfile_serialization=False),
        "bare.pth": pickle.dumps(payload),
        "zip.safetensors": as_torch(payload),
        "zip.npz": as_torch(payload),
    }.items():
        (folder / name).write_bytes(data)
    return folder


def test_no_pickle_in_a_shape_runs(run, quick, tmp_path, marker):
    folder = plant(tmp_path / "in", Payload(marker))

    store = tmp_path / "ds.zarr"
    outcome = run("fit", folder, "--field", "occ", "--store", store, *quick)

    assert outcome.exit_code == 7, outcome.stderr
    assert "Python objects" in run("info", store, "--failed").stdout


def test_no_pickle_in_a_field_from_elsewhere_runs(run, tmp_path, marker):
    folder = plant(tmp_path / "in", Payload(marker))

    for name in sorted(folder.iterdir()):
        outcome = run("import", name, "--store", tmp_path / "ds.zarr", "--jobs", "1")
        assert outcome.exit_code in (2, 4, 5, 7), (name, outcome.stderr)


def test_no_pickle_in_an_encoder_labels_or_parts_runs(run, quick, tmp_path, unpacked, marker):
    folder = plant(tmp_path / "in", Payload(marker))
    store = unpacked("embedded")

    for name in sorted(folder.iterdir()):
        assert run("encode", store, "--encoder", name).exit_code in (2, 4, 5), name
        shapes = ("fit", Path(__file__), "--field", "occ", "--labels", name)
        assert run(*shapes, "--store", tmp_path / "x.zarr", *quick).exit_code in (2, 5), name
    assert run("segment", store, "--parts", folder).exit_code in (2, 4, 5)


def test_no_pickle_in_a_store_runs(run, unpacked, marker):
    evil = pickle.dumps(Payload(marker))
    store = unpacked("embedded")
    for file in store.rglob("c/*"):
        if file.is_file():
            file.write_bytes(evil)
    (store / "indexes").mkdir()
    (store / "indexes" / "x.usearch").write_bytes(evil)
    for line in ("info", "check", "encode", "reconstruct --out {out}", "retrieve --query shape-0"):
        verb, *rest = line.format(out=store.parent / "out").split()
        assert run(verb, store, *rest).exit_code in (0, 4, 7)

    store = unpacked("sdf-compact")
    for name, codec in (("id", "numcodecs.pickle"), ("error", "pickle")):
        file = store / name / "zarr.json"
        tree = json.loads(file.read_text())
        tree["codecs"] = [{"name": codec, "configuration": {}}]
        file.write_text(json.dumps(tree))
        (store / name / "c").mkdir(exist_ok=True)
        for chunk in (store / name / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(evil)
        assert run("info", store, "--objects").exit_code == 4


OUTSIDE = (
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.bin",
    "https://x.invalid/a.png",
    "..\\..\\etc\\passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "a/../../x",
)


@pytest.mark.parametrize("uri", OUTSIDE)
def test_no_side_file_is_read_from_elsewhere_or_fetched(tmp_path, monkeypatch, uri):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box()))
    tree = json.loads(files["model.gltf"])
    for buffer in tree["buffers"]:
        buffer["uri"] = uri
    (tmp_path / "box.gltf").write_text(json.dumps(tree))
    (tmp_path / "box.obj").write_text(f"mtllib {uri}\nv 0 0 0\n")

    with pytest.raises(InputError):
        load_mesh(tmp_path / "box.gltf")
    with pytest.raises(InputError):
        SideFiles.of_colours(tmp_path / "box.obj").get(uri)
    for is_uri in (True, False):
        try:
            found = side_file(tmp_path, uri, uri=is_uri)
        except InputError:
            continue
        assert found.is_relative_to(tmp_path)


def test_a_list_that_climbs_gives_ids_that_do_not(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "x.off").write_text("OFF\n")
    (tmp_path / "in" / "list.txt").write_text("../x.off\n/etc/../etc/y.off\n")

    for ref in discover(tmp_path / "in" / "list.txt"):
        assert ".." not in ref.id
        assert not ref.id.startswith("/")


def test_links_out_of_a_folder_of_shapes_are_not_followed(tmp_path):
    folder, other = tmp_path / "in", tmp_path / "other"
    for place in (folder, other):
        place.mkdir()
        (place / f"{place.name}.off").write_text("OFF\n")
    (folder / "root").symlink_to("/", target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "out.off").symlink_to(other / "other.off")
    (folder / "same.off").symlink_to(folder / "in.off")

    assert [ref.id for ref in discover(folder)] == ["in", "same"]


def renamed(store, column, text):
    array = zarr.open_group(store, mode="r+")[column]
    raw = text.encode().ljust(array.shape[1], b"\0")
    array[0] = np.frombuffer(raw, np.uint8)


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../../evil"])
def test_an_id_that_climbs_writes_nothing_outside(run, unpacked, tmp_path, name):
    store = unpacked("sdf-compact")
    renamed(store, "id", name)
    out = tmp_path / "deep" / "out"

    outcome = run("reconstruct", store, "--out", out, "--resolution", "16", "--jobs", "1")

    assert outcome.exit_code == 4, outcome.stderr
    assert "is no path inside a folder" in outcome.stderr
    run("export", store, "--out", tmp_path / "deep" / "exported", "--jobs", "1")
    assert not [f for f in tmp_path.rglob("evil*") if not f.is_relative_to(tmp_path / "deep")]
    assert not list(Path("/tmp").glob("evil*"))


def test_a_source_that_climbs_is_not_opened(run, unpacked, tmp_path):
    store = unpacked("sdf-compact")
    renamed(store, "source", "../../../../etc/passwd")

    outcome = run("reconstruct", store, "--out", tmp_path / "out", "--sources", tmp_path)

    assert outcome.exit_code == 4
    assert "is no path inside a folder" in outcome.stderr


def test_links_out_of_a_store_are_told_by_the_check(unpacked, tmp_path):
    store = unpacked("sdf-compact")
    chunk = next((store / "quantised" / "c").rglob("0"))
    chunk = next(file for file in [chunk, *chunk.rglob("*")] if file.is_file())
    shutil.move(chunk, tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")

    report = check_store(store)

    assert [(f.kind, f.where) for f in report.findings] == [("link", str(chunk.relative_to(store)))]


def test_pages_hold_no_markup_of_names(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    write_page([[Card(picture, SCRIPT, SCRIPT)]], tmp_path / "page.html", title=SCRIPT)
    hits = (tmp_path / "page.html").read_text()
    page = page_of(SCRIPT, {"ids": [SCRIPT], "classes": ["</script>", SCRIPT]}, ["AAAA"])

    for text in (hits, page):
        assert "<script>alert" not in text
        assert '"><' not in text.split("</style>")[1].split("alert(1)")[0][-40:]
    assert "\\u003c/script\\u003e" in page


def test_names_cannot_talk_to_the_terminal(run, unpacked):
    store = unpacked("sdf-compact")
    for column in ("id", "class", "message"):
        renamed(store, column, COLOUR[:60])

    for words in (("--objects",), ("--objects", "--json"), ()):
        outcome = run("info", store, *words)
        assert "\x1b" not in outcome.stdout + outcome.stderr
        assert "\x07" not in outcome.stdout
    assert "[bold red]x" in run("info", store, "--objects").stdout


@pytest.mark.parametrize("kind", [Lines, Bar])
def test_progress_says_names_without_their_escapes(kind):
    stream = io.StringIO()
    teller = kind(stream)
    teller.start(1, "fit")
    teller.note(f"{COLOUR}: failed")
    teller.close()

    assert "\x1b" not in stream.getvalue()
    assert "[bold red]x" in stream.getvalue()


def test_secrets_of_the_environment_are_never_printed(run, unpacked, monkeypatch, tmp_path):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "do-not-tell")
    store = unpacked("sdf-compact")
    (store / "status" / "zarr.json").write_text("{")

    for words in (("info", store), ("check", store), ("info", tmp_path / "none.zarr")):
        outcome = run("--debug", *words)
        assert "do-not-tell" not in outcome.stdout + outcome.stderr
    assert "do-not-tell" not in "".join(
        f.read_text(errors="ignore") for f in store.rglob("zarr.json")
    )


def test_an_array_may_not_promise_more_than_memory(unpacked):
    store = unpacked("sdf-compact")
    for name, key, value in (
        ("status", "shape", [10**15]),
        ("id", "chunk", [10**12, 256]),
        ("quantised", "shape", [2, 10**12]),
    ):
        file = store / name / "zarr.json"
        kept = file.read_text()
        tree = json.loads(kept)
        if key == "shape":
            tree["shape"] = value
        else:
            tree["chunk_grid"]["configuration"]["chunk_shape"] = value
        file.write_text(json.dumps(tree))
        with pytest.raises(StoreError, match=f"{name!r} is "):
            sound_array(open_store(store), name)
        file.write_text(kept)
