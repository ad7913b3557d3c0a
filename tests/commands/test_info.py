import json
import subprocess
import sys

from nf2vec_cli.store.products import ENCODERS, HEADS, save_state
from nf2vec_cli.store.store import open_store


def test_info_counts_what_is_there(run, fitted):
    outcome = run("info", fitted, "--json")

    info = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert info["objects"] == 3
    assert info["status"] == {"done": 3}
    assert info["init"] == open_store(fitted).init_hash
    assert "50,177 parameters" in info["network"]
    assert [row["class"] for row in info["classes"]] == ["chair", "lamp", "sofa"]
    assert info["fit_error"]["worst"] >= info["fit_error"]["median"] > 0


def test_info_as_text_names_the_init(run, fitted):
    outcome = run("info", fitted)

    assert open_store(fitted).init_hash in outcome.stdout
    assert "chair" in outcome.stdout


def test_encoders_are_told_with_what_they_have_embedded(run, fitted):
    assert json.loads(run("info", fitted, "--json").stdout)["encoders"] == []
    assert "\nencoders\n" not in run("info", fitted).stdout
    key = json.loads(run("encode", fitted, "--json").stdout)["encoder"]
    store = open_store(fitted, mode="a")
    row = store.rows()[0]
    store.commit([row], store.weights([row]) + 1)
    save_state(store, ENCODERS, "bare", {}, ended="3000")

    (encoder, bare) = json.loads(run("info", fitted, "--json").stdout)["encoders"]

    assert encoder.pop("ended") > "2020"
    assert encoder == {"key": key, "arch": "aligned", "field": "sdf", "embedded": 2, "stale": 1}
    assert bare == {"key": "bare", "arch": None, "field": None, "embedded": 0, "stale": 0} | {
        "ended": "3000"
    }
    assert key in run("info", fitted).stdout


def test_a_head_of_another_version_is_listed_by_what_it_tells(run, fitted):
    store = open_store(fitted, mode="a")
    save_state(store, f"{HEADS}/classify", "old", {}, encoder="one", ended="2026")
    save_state(store, f"{HEADS}/zoom", "new", {}, ended="2026")
    store.group[f"{HEADS}/classify"].create_group("half")  # a run was killed as it kept it

    heads = json.loads(run("info", fitted, "--json").stdout)["heads"]

    nothing = {"about": None, "metric": None, "value": None, "ended": "2026"}
    assert heads == [
        {"task": "classify", "key": "old", "encoder": "one"} | nothing,
        {"task": "zoom", "key": "new", "encoder": None} | nothing,
    ]


def test_info_loads_no_torch(run, fitted):
    assert run("encode", fitted).exit_code == 0
    code = """
import sys
from pathlib import Path
from nf2vec_cli.tasks.info import store_info
assert store_info(Path(sys.argv[1])).encoders
assert "torch" not in sys.modules
"""

    assert subprocess.run([sys.executable, "-c", code, fitted], check=False).returncode == 0


def test_storage_measures_each_codec(run, fitted):
    outcome = run("info", fitted, "--storage", "--json")

    storage = json.loads(outcome.stdout)
    codecs = {row["codec"]: row for row in storage["codecs"]}
    assert list(codecs)[:2] == ["exact", "compact 8 bit"]
    assert codecs["exact"]["bytes_per_object"] > 100_000
    sizes = [codecs[f"compact {bits} bit"]["bytes_per_object"] for bits in (8, 7, 6, 5)]
    assert sizes == sorted(sizes, reverse=True)
    assert codecs["compact 5 bit"]["error"] > 0
    assert storage["bytes"] == sum(row["bytes"] for row in storage["arrays"])
    assert storage["bytes"] == sum(f.stat().st_size for f in fitted.rglob("*") if f.is_file())


def test_objects_are_listed_one_a_line(run, fitted):
    outcome = run("info", fitted, "--objects", "--json")

    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["chair/chair", "lamp/lamp", "sofa/sofa"]
    assert all(row["status"] == "done" and row["watertight"] for row in rows)


def test_a_store_that_is_not_there_is_code_4(run, tmp_path):
    outcome = run("info", tmp_path / "no.zarr")

    assert outcome.exit_code == 4
    assert "nf2vec fit" in outcome.stderr


def test_a_folder_that_is_no_store_is_code_4(run, tmp_path):
    assert run("info", tmp_path).exit_code == 4
