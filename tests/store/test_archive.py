import stat
import zipfile

import pytest

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.store import open_store


def pack(folder, file, *, top="", method=zipfile.ZIP_STORED, more=()):
    """Zip a store, and other members: (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(file, "w", method) as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                made.write(path, f"{top}{path.relative_to(folder).as_posix()}")
        for name, data in more:
            made.writestr(name, data)
    return file


@pytest.mark.parametrize(
    ("top", "method"), [("", zipfile.ZIP_STORED), ("ds.zarr/", zipfile.ZIP_DEFLATED)]
)
def test_a_zip_reads_as_its_folder_does(filled, tmp_path, top, method):
    file = pack(filled.path, tmp_path / "ds.zarr.zip", top=top, method=method)

    packed = open_store(file)

    assert (packed.weights(range(4)) == filled.weights(range(4))).all()
    assert packed.column("id") == filled.column("id")
    assert set(packed.storage()) == set(filled.storage())
    assert check_store(file).sound


def test_a_zip_is_not_written(filled, tmp_path):
    file = pack(filled.path, tmp_path / "ds.zarr.zip")

    with pytest.raises(StoreError, match="only read") as caught, store_lock(file):
        pass
    assert f"nf2vec copy {file} {tmp_path / 'ds.zarr'}" in caught.value.hint
    with pytest.raises(StoreError, match="only read"):
        open_store(file, mode="a")
    with pytest.raises(StoreError, match="only read"):
        check_store(file, repair=True)


def link(name):
    made = zipfile.ZipInfo(name)
    made.external_attr = (stat.S_IFLNK | 0o777) << 16
    return made


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("../out", b"x"), "leave its folder"),
        (("a/../../out", b"x"), "leave its folder"),
        (("/etc/passwd", b"x"), "leave its folder"),
        (("C:/x", b"x"), "leave its folder"),
        (("a\\..\\b", b"x"), "leave its folder"),
        ((link("a"), b"/etc/passwd"), "symbolic link"),
        (("a", b"\0" * (65 << 20)), "would swell"),
    ],
    ids=["up", "inner-up", "absolute", "drive", "backslash", "link", "bomb"],
)
def test_a_zip_that_is_not_to_be_trusted(make, tmp_path, more, reason):
    file = pack(make().path, tmp_path / "ds.zarr.zip", method=zipfile.ZIP_DEFLATED, more=[more])

    with pytest.raises(StoreError, match=reason):
        open_store(file)


def test_a_name_that_is_there_twice(make, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = pack(make().path, tmp_path / "ds.zarr.zip", more=[("zarr.json", b"{}")])

    with pytest.raises(StoreError, match="twice"):
        open_store(file)


def test_damage_in_a_zip_is_found_where_it_is(filled, tmp_path):
    file = pack(filled.path, tmp_path / "ds.zarr.zip")
    name = "quantised/c/0/0" if filled.codec == "compact" else "bits/c/0/0"
    with zipfile.ZipFile(file) as packed:
        start = packed.getinfo(name).header_offset + 60
    data = bytearray(file.read_bytes())
    data[start] ^= 0xFF
    file.write_bytes(bytes(data))

    found = check_store(file).findings

    assert found
    assert all(finding.kind == "field" for finding in found)


def test_a_zip_that_is_none(tmp_path):
    file = tmp_path / "ds.zarr.zip"
    with pytest.raises(StoreError, match="is not there"):
        open_store(file)
    file.write_bytes(b"PK no zip")
    with pytest.raises(StoreError, match="no zip"):
        open_store(file)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as made:
        made.writestr("readme", b"x")
    with pytest.raises(StoreError, match=r"no zarr\.json"):
        open_store(tmp_path / "other.zip")
