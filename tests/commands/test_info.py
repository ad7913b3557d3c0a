import json

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
