import pytest

from nf2vec_cli.errors import StoreError
from nf2vec_cli.tasks.sources import file_of, inside


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
def test_a_name_from_a_store_never_leaves_the_folder(tmp_path, name):
    with pytest.raises(StoreError):
        inside(tmp_path, name)


def test_nor_by_a_link(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)

    with pytest.raises(StoreError):
        inside(tmp_path / "out", "link/x.ply")


def test_a_plain_name_is_joined(tmp_path):
    assert inside(tmp_path, "chair/ä b.ply") == tmp_path / "chair" / "ä b.ply"


@pytest.mark.parametrize("name", ["", "a" * 251, "\ud800" * 100, "../x"])
def test_an_id_that_is_no_name_for_a_file_is_refused(tmp_path, name):
    with pytest.raises(StoreError):
        file_of(tmp_path, name, ".ply")


def test_a_file_is_named_by_its_objects_id(tmp_path):
    assert file_of(tmp_path, "chair/a.b", ".ply") == tmp_path / "chair" / "a.b.ply"
