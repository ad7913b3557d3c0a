import json
import shutil

import numpy as np
import pytest

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.products import ENCODERS, keys, save_state
from nf2vec_cli.store.schema import COPYING
from nf2vec_cli.store.store import open_store


def change(file, *path, value):
    tree = json.loads(file.read_text())
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("field", "light", "kind that is not known here, 'light'"),
        ("batch", 10**12, "'batch' of its zarr.json is 1000000000000"),
        ("batch", True, "'batch' of its zarr.json is True"),
        ("bits", "8", "'bits' of its zarr.json is '8'"),
        ("codec", "pickle", "'codec' of its zarr.json is 'pickle'"),
        ("config", None, "'config' of its zarr.json is None"),
        ("imported", {"init": 3}, "'imported' of its zarr.json"),
        ("network", {"hidden": 10**9}, "init and network have the hash"),
    ],
)
def test_what_the_root_says_is_believed_within_bounds(filled, name, value, words):
    change(filled.path / "zarr.json", "attributes", name, value=value)

    with pytest.raises(StoreError, match=words):
        open_store(filled.path)


def test_settings_that_cannot_be_used_are_named(filled):
    change(filled.path / "zarr.json", "attributes", "config", value={"beta2": []})

    with pytest.raises(StoreError, match="settings that cannot be used: beta2"):
        fit_config(open_store(filled.path))


@pytest.mark.parametrize("name", ["copy", "parent", "class"])
def test_metadata_of_a_column_that_is_no_json_is_damage(filled, name):
    (filled.path / name / "zarr.json").write_bytes(b"\xff{")

    with pytest.raises(StoreError, match=f"array '{name}' cannot be read"):
        open_store(filled.path).column(name)
    assert not check_store(filled.path).sound


def test_a_column_with_too_few_rows_is_damage(filled):
    change(filled.path / "error" / "zarr.json", "shape", value=[1])

    with pytest.raises(StoreError, match="'error' has 1 of"):
        open_store(filled.path).column("error")


def test_a_store_whose_root_says_nothing_is_not_made_anew(filled, make):
    root = filled.path / "zarr.json"
    change(root, "attributes", value={})
    before = {file: file.read_bytes() for file in filled.path.rglob("*") if file.is_file()}

    with pytest.raises(StoreError, match="it holds objects"):
        make(filled.path.name)

    assert before == {file: file.read_bytes() for file in filled.path.rglob("*") if file.is_file()}


def test_a_copy_that_was_not_finished_is_not_made_anew(tmp_path, make):
    (tmp_path / "ds.zarr").mkdir()
    (tmp_path / "ds.zarr" / COPYING).write_text("{}")

    with pytest.raises(StoreError, match="copy that was not finished"):
        make("ds.zarr")


@pytest.mark.parametrize("damaged", ["encoders/zarr.json", "encoders/good/zarr.json"])
def test_metadata_of_encoders_that_is_no_json_is_damage(filled, damaged):
    save_state(open_store(filled.path, mode="a"), ENCODERS, "good", {"none": np.zeros(1)})
    (filled.path / damaged).write_bytes(b"\xff{")

    with pytest.raises(StoreError, match="encoders"):
        keys(open_store(filled.path), ENCODERS)


def test_what_could_not_be_removed_whole_is_no_state(filled):
    opened = open_store(filled.path, mode="a")
    save_state(opened, ENCODERS, "good", {"none": np.zeros(1)})
    shutil.copytree(filled.path / ENCODERS / "good", filled.path / ENCODERS / "good.0f.partial")

    assert keys(open_store(filled.path), ENCODERS) == ["good"]
