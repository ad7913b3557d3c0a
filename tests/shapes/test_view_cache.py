import logging

import numpy as np
import pytest
from painted import block

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes import view_cache
from nf2vec_cli.shapes.view_cache import views_of
from nf2vec_cli.shapes.views import load_views, write_views

SMALL = {"views": 4, "size": 16, "digest": b"1"}


@pytest.fixture
def path(tmp_path):
    block().export(tmp_path / "block.ply")
    return tmp_path / "block.ply"


@pytest.fixture
def drawn(monkeypatch):
    """Count how often a mesh is drawn."""
    calls = []
    plain = view_cache.render_mesh

    def counted(path, **settings):
        calls.append(settings)
        return plain(path, **settings)

    monkeypatch.setattr(view_cache, "render_mesh", counted)
    return calls


def assert_same(one, two):
    for name in ("pixels", "poses", "focal", "held", "box"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a == b).all()
        assert a.dtype == b.dtype
        assert b.flags.writeable
    assert one.notes == two.notes


def test_pictures_are_kept_and_read_again(path, tmp_path, drawn):
    first = views_of(path, cache=tmp_path / "a" / "b", **SMALL)
    second = views_of(path, cache=tmp_path / "a" / "b", **SMALL)

    assert len(drawn) == 1
    assert_same(first, second)
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


def test_notes_are_kept(tmp_path, drawn):
    path = tmp_path / "x.obj"
    path.write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")

    first, second = (views_of(path, cache=tmp_path / "c", **SMALL) for _ in range(2))

    assert len(drawn) == 1
    assert first.notes == second.notes != ()


@pytest.mark.parametrize(
    "other", [{"views": 5}, {"size": 17}, {"seed": 1}, {"digest": b"2"}, {"how": "vertices"}]
)
def test_what_changes_the_pictures_has_pictures_of_its_own(path, tmp_path, drawn, other):
    views_of(path, cache=tmp_path / "c", **SMALL)
    views_of(path, cache=tmp_path / "c", **SMALL | other)

    assert len(drawn) == len(list((tmp_path / "c").iterdir())) == 2


def test_another_look_makes_pictures_anew(path, tmp_path, drawn, monkeypatch):
    views_of(path, cache=tmp_path / "c", **SMALL)
    monkeypatch.setattr(view_cache, "LOOK", view_cache.LOOK + 1)
    views_of(path, cache=tmp_path / "c", **SMALL)

    assert len(drawn) == 2


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def of_other_shapes(data):
    from io import BytesIO

    stream = BytesIO()
    arrays = dict(np.load(BytesIO(data)))
    np.savez(stream, **arrays | {"poses": arrays["poses"][:1]})
    return stream.getvalue()


@pytest.mark.parametrize(
    "damage", [cut, flipped, of_other_shapes, lambda _: b"", lambda _: b"PK\3\4 nonsense"]
)
def test_a_damaged_file_is_made_again(path, tmp_path, drawn, caplog, damage):
    first = views_of(path, cache=tmp_path / "c", **SMALL)
    (file,) = (tmp_path / "c").iterdir()
    file.write_bytes(damage(file.read_bytes()))

    again = views_of(path, cache=tmp_path / "c", **SMALL)
    third = views_of(path, cache=tmp_path / "c", **SMALL)

    assert len(drawn) == 2
    assert "made again" in caplog.text
    assert_same(first, again)
    assert_same(first, third)


def test_a_cache_that_cannot_be_written_is_done_without(path, tmp_path, caplog):
    (tmp_path / "c").write_text("a file, where the folder should be")

    with caplog.at_level(logging.WARNING):
        views = views_of(path, cache=tmp_path / "c", **SMALL)

    assert len(views.pixels) == 8
    assert "cannot be kept" in caplog.text
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_without_a_cache_nothing_is_written(path, tmp_path):
    views_of(path, **SMALL)

    assert [p.name for p in tmp_path.iterdir()] == ["block.ply"]


def test_a_folder_of_pictures_is_read_and_not_kept(path, tmp_path, drawn):
    views = views_of(path, **SMALL)
    write_views(views, tmp_path / "v")

    found = views_of(tmp_path / "v", cache=tmp_path / "c", **SMALL)

    assert_same(found, load_views(tmp_path / "v"))
    assert len(drawn) == 1
    assert not (tmp_path / "c").exists()


def test_a_mesh_that_cannot_be_drawn_leaves_nothing(tmp_path):
    (tmp_path / "x.off").write_text("nonsense")

    with pytest.raises(InputError):
        views_of(tmp_path / "x.off", cache=tmp_path / "c", **SMALL)
    assert not (tmp_path / "c").exists()
