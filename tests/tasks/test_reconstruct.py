import pytest

from nf2vec_cli.errors import StoreError
from nf2vec_cli.tasks.sources import inside


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
