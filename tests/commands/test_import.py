import json
import os

import numpy as np
import pytest
import torch
from strangers import (
    NERF,
    SPEC,
    authors_h5,
    authors_mesh,
    ball_cloud,
    fit_a_nef,
    kernels,
    layers_of,
    near,
    nerf_folder,
    start,
    state_dict,
    torch_init,
)

from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.store.store import open_store

pytest.importorskip("h5py")


def told(outcome, code=0):
    assert outcome.exit_code == code, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.fixture
def inrs(tmp_path):
    """Six of the authors' files: clouds of a ball, near one init."""
    for number in range(6):
        split = ("train", "train", "train", "train", "val", "test")[number]
        path = tmp_path / "inrs" / split / f"{number}.h5"
        authors_h5(path, near(start(), number), number % 2, pcd=ball_cloud())
    return tmp_path / "inrs"


@pytest.fixture
def init(tmp_path):
    return torch_init(tmp_path / "in3_out1_h32_l4.pt", start())


def test_the_authors_files_with_their_init(run, inrs, init, tmp_path):
    store = tmp_path / "ds.zarr"
    line = ["import", inrs, "--field", "udf", "--init", init, "--store", store, "--json"]

    result = told(run(*line))

    assert (result["imported"], result["aligned"], result["codec"]) == (6, 6, "compact")
    kept = open_store(store)
    assert np.array_equal(kept.init, start())
    assert kept.imported == {"layout": "nf2vec-h5", "init": init.name}
    (row,) = kept.find(["train/3"])
    assert np.abs(kept.weights([row])[0] - near(start(), 3)).max() < 1e-4
    assert (kept.column("class")[row], kept.column("split")[row]) == ("1", "train")
    radii = np.linalg.norm(kept.surface([row])[0], axis=1)
    assert radii == pytest.approx(0.5, abs=1e-3)
    assert 0 < kept.column("error")[row] < 0.1
    assert any(kept.column("hash")[row])
    (record,) = kept.runs()
    assert (record["kind"], record["summary"]["imported"]) == ("import", 6)
    assert run("check", store).exit_code == 0


def test_a_second_run_does_nothing_and_a_changed_file_is_read_again(run, inrs, init, tmp_path):
    store = tmp_path / "ds.zarr"
    line = ["import", inrs, "--field", "udf", "--init", init, "--store", store, "--json"]
    run(*line)

    again = told(run(*line))
    authors_h5(inrs / "train" / "0.h5", near(start(), 50), 1, pcd=ball_cloud())
    changed = told(run(*line))

    assert (again["imported"], again["skipped"]) == (0, 6)
    assert (changed["imported"], changed["skipped"]) == (1, 5)
    kept = open_store(store)
    (row,) = kept.find(["train/0"])
    assert kept.column("class")[row] == "1"
    assert np.abs(kept.weights([row])[0] - near(start(), 50)).max() < 1e-4


def test_a_class_that_the_file_says_stands_above_its_folder_in_every_run(run, tmp_path):
    authors_h5(tmp_path / "inrs" / "modelnet" / "train" / "0.h5", near(start(), 1), 5)
    line = ["import", tmp_path / "inrs", "--field", "udf", "--store", tmp_path / "ds.zarr"]

    for _ in range(2):
        assert run(*line).exit_code == 0
        assert open_store(tmp_path / "ds.zarr").column("class")[0] == "5"


def test_what_cannot_be_read_is_reported_and_the_others_go_on(run, inrs, init, tmp_path):
    (inrs / "test" / "7.h5").write_bytes(b"no HDF5 at all")
    authors_h5(inrs / "test" / "8.h5", np.full(len(start()), np.nan, np.float32))
    other = SPEC.__class__(hidden=48, layers=4)
    authors_h5(inrs / "test" / "9.h5", start(1, other))
    store = tmp_path / "ds.zarr"

    outcome = run("import", inrs, "--field", "udf", "--init", init, "--store", store, "--json")

    result = told(outcome, 7)
    reasons = {one["id"]: one["reason"] for one in result["failures"]}
    assert result["imported"] == 6
    assert "no HDF5 file" in reasons["test/7"]
    assert "3,329 of its 3,329 weights are NaN" in reasons["test/8"]
    assert "3-48x4-1" in reasons["test/9"]
    assert "3-32x4-1" in reasons["test/9"]
    assert "nf2vec info" in outcome.stderr


def test_where_nothing_can_be_read_nothing_is_made(run, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.h5").write_bytes(b"junk")
    store = tmp_path / "ds.zarr"

    outcome = run("import", tmp_path / "bad", "--field", "sdf", "--store", store)

    assert outcome.exit_code == 5
    assert "none of 1 fields can be read; a: the file is damaged" in outcome.stderr
    assert not store.exists()


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(run, inrs, init, tmp_path):
    store = tmp_path / "ds.zarr"
    line = ["import", inrs, "--field", "udf", "--init", init, "--store", store, "--dry-run"]

    preview = told(run(*line, "--json"))

    assert (preview["to_import"], preview["layout"], preview["init"]) == (6, "nf2vec-h5", init.name)
    assert not store.exists()


def test_the_kind_of_field_must_be_said(run, inrs, tmp_path):
    outcome = run("import", inrs, "--store", tmp_path / "ds.zarr")

    assert outcome.exit_code == 2
    assert "--field sdf" in outcome.stderr


def test_without_an_init_fields_are_not_embedded_and_no_fit_joins_them(run, inrs, shapes, tmp_path):
    store = tmp_path / "ds.zarr"

    outcome = run("import", inrs, "--field", "udf", "--store", store, "--json")

    assert told(outcome)["init"] == "unknown"
    assert "not embedded" in outcome.stderr.replace("\n  ", " ")
    assert told(run("info", store, "--json"))["init"] == "unknown"
    for line in (("encode",), ("train",), ("align", "--all")):
        refused = run(line[0], store, *line[1:])
        assert refused.exit_code == 4
        assert "--init FILE" in refused.stderr
        assert "ds-2.zarr" in refused.stderr
    assert not (tmp_path / "ds-aligned.zarr").exists()
    joined = run("fit", shapes, "--field", "udf", "--store", store)
    assert joined.exit_code == 4
    assert "fields from elsewhere" in joined.stderr


def test_raw_weights_are_quantised_only_if_that_hardly_shows(run, tmp_path):
    """Of wide spread weights eight bits change the field too much: every bit is kept."""
    wild = near(start(), 1)
    wild[:96] *= 30  # a first matrix whose rounding turns every sine
    torch.save(state_dict(layers_of(wild)), tmp_path / "a.pth")
    store = tmp_path / "ds.zarr"

    result = told(run("import", tmp_path / "a.pth", "--field", "occ", "--store", store, "--json"))

    assert result["codec"] == "exact"
    assert np.array_equal(open_store(store).weights([0])[0], wild)
    assert open_store(store).runs()[0]["summary"]["compact_change"] > 1e-3


def test_the_first_field_stands_for_an_init_that_nobody_has(run, inrs, tmp_path):
    stranger = inrs / "test" / "9.h5"
    authors_h5(stranger, near(start(99), 1), 0, pcd=ball_cloud())
    store = tmp_path / "ds.zarr"

    outcome = run("import", inrs, "--field", "udf", "--init", "first", "--store", store, "--json")

    assert (told(outcome)["aligned"], told(outcome)["imported"]) == (6, 7)
    assert "1 of 7 fields did not start from this init" in outcome.stderr


def test_another_init_than_the_store_s_is_refused(run, inrs, init, tmp_path):
    store = tmp_path / "ds.zarr"
    run("import", inrs, "--field", "udf", "--init", init, "--store", store)
    other = torch_init(tmp_path / "other.pt", start(8))

    outcome = run("import", inrs, "--init", other, "--store", store)

    assert outcome.exit_code == 4
    assert "another init" in outcome.stderr


@pytest.mark.parametrize("asked", ["first", "file"])
def test_a_store_of_unknown_init_is_told_none_later(run, inrs, init, tmp_path, asked):
    store = tmp_path / "ds.zarr"
    run("import", inrs, "--field", "udf", "--store", store)

    outcome = run("import", inrs, "--init", init if asked == "file" else asked, "--store", store)

    assert outcome.exit_code == 4
    assert "starts from no known init" in outcome.stderr
    assert "ds-2.zarr" in outcome.stderr
    assert run("import", inrs, "--store", store).exit_code == 0


def test_what_align_makes_of_imported_fields_is_imported_too(run, tmp_path):
    store, out = tmp_path / "ds.zarr", tmp_path / "aligned.zarr"
    nerf_folder(tmp_path / "data" / "n0", near(radiance_init(NERF, seed=0).numpy(), 1, by=0.05))
    assert run("import", tmp_path / "data", "--store", store).exit_code == 0

    told(run("align", store, "--all", "--out", out, "--jobs", 1, "--json"))

    assert open_store(out).imported == open_store(store).imported
    checked = run("check", out)
    assert checked.exit_code == 0, checked.stdout
    for path in (store, out):
        assert "imported, layout nerf-folder" in told(run("info", path, "--json"))["recipe"]
        refused = run("fit", tmp_path / "data", "--field", "nerf", "--store", path, "--dry-run")
        assert refused.exit_code == 4, refused.stderr
        assert "fields from elsewhere" in refused.stderr


def test_imported_fields_train_an_encoder_and_are_embedded(run, inrs, init, tmp_path):
    from near_init import options

    store = tmp_path / "ds.zarr"
    run("import", inrs, "--field", "udf", "--init", init, "--store", store)

    trained = run("train", store, *options())
    encoded = run("encode", store, "--json")

    assert trained.exit_code == 0, trained.stderr
    assert told(encoded)["encoded"] == 6


def test_a_store_of_embeddings_tells_where_their_fields_came_from(run, inrs, init, tmp_path):
    from near_init import options

    from nf2vec_cli.store.schema import Entry
    from nf2vec_cli.tasks.embedding_store import write_embedding_store
    from nf2vec_cli.tasks.encoders import open_encoder

    store, made = tmp_path / "ds.zarr", tmp_path / "made.zarr"
    run("import", inrs, "--field", "udf", "--init", init, "--store", store)
    assert run("train", store, *options()).exit_code == 0
    like, how = open_store(store), {"config": {}, "summary": {}, "versions": {}}
    known, z = open_encoder(like), np.zeros((1, 16), np.float32)

    write_embedding_store(made, like, known, [Entry("a", "")], z, {}, kind="generate", **how)

    assert open_store(made).imported == like.imported
    assert run("check", made).exit_code == 0


def test_a_mesh_tells_the_error_of_a_signed_distance(run, tmp_path):
    authors_h5(tmp_path / "a" / "train" / "0.h5", near(start(), 1), 3, **authors_mesh())
    store = tmp_path / "ds.zarr"

    assert told(run("import", tmp_path / "a", "--field", "sdf", "--store", store, "--json"))

    kept = open_store(store)
    assert kept.column("watertight")[0] == 1
    assert kept.column("faces")[0] == 1280
    assert 0 < kept.column("error")[0] < 0.1


def test_labels_of_a_table_stand_above_the_file_s(run, inrs, tmp_path):
    (tmp_path / "labels.csv").write_text("name,class,split\ntrain/0,chair,test\n")
    store = tmp_path / "ds.zarr"
    labels = ["--labels", tmp_path / "labels.csv"]

    run("import", inrs, "--field", "udf", "--store", store, *labels)

    kept = open_store(store)
    row = kept.find(["train/0", "train/1"])
    assert [kept.column("class")[r] for r in row] == ["chair", "1"]
    assert [kept.column("split")[r] for r in row] == ["test", "train"]


def test_dwsnets_and_a_settings_file(run, tmp_path):
    folder = tmp_path / "nets" / "chair" / "a" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state_dict(layers_of(near(start(), 1)), "seq.{layer}.{part}"), folder / "m.pth")
    (tmp_path / "net.toml").write_text('field = "occ"\nomega = 20.0\n')
    store = tmp_path / "ds.zarr"
    line = ["import", tmp_path / "nets", "--layout", "dwsnets", "--network", tmp_path / "net.toml"]

    result = told(run(*line, "--store", store, "--codec", "exact", "--json"))

    kept = open_store(store)
    assert (result["imported"], kept.field, kept.network["omega"]) == (1, "occ", 20.0)
    assert kept.weights([0])[0, -1] == pytest.approx(near(start(), 1)[-1] + 0.5)
    assert kept.column("class")[0] == "chair"


def test_a_setting_that_is_none_is_code_3(run, tmp_path):
    (tmp_path / "net.toml").write_text("omegga = 20.0\n")

    outcome = run(
        "import", tmp_path, "--store", tmp_path / "a.zarr", "--network", tmp_path / "net.toml"
    )

    assert outcome.exit_code == 3
    assert "the nearest is omega" in outcome.stderr


def test_fit_a_nef_is_known_by_its_content(run, tmp_path):
    fields = [kernels((3, 16, 16, 1), seed) for seed in range(3)]
    fit_a_nef(tmp_path / "nefs" / "nefs_0-3.hdf5", fields, [4, 5, 6])
    (tmp_path / "nefs" / "nefs_3-6.hdf5").write_bytes(b"junk")
    store = tmp_path / "ds.zarr"

    result = told(run("import", tmp_path / "nefs", "--store", store, "--json"), 7)

    kept = open_store(store)
    assert (result["layout"], result["imported"], kept.field) == ("fit-a-nef", 3, "occ")
    assert [kept.column("class")[row] for row in kept.find(["nefs_0-3/1", "nefs_0-3/2"])] == [
        "5",
        "6",
    ]
    assert result["failures"][0]["id"] == "nefs_3-6"


def test_folders_of_radiance_start_from_the_official_init(run, tmp_path):
    theta = near(radiance_init(NERF, seed=0).numpy(), 1, by=0.05)
    for number in range(2):
        grid = nerf_folder(tmp_path / "data" / "02691156" / f"n{number}", theta)
    store = tmp_path / "ds.zarr"

    result = told(run("import", tmp_path / "data", "--codec", "exact", "--store", store, "--json"))

    from nf2vec_cli.store.radiance import read_cameras, read_grids

    kept = open_store(store)
    assert (result["layout"], result["init"], result["aligned"]) == ("nerf-folder", "official", 2)
    assert np.array_equal(kept.init, radiance_init(NERF, seed=0).numpy())
    assert np.array_equal(kept.weights([0])[0], theta)
    assert np.array_equal(read_grids(kept, [0])[0], grid)
    assert read_cameras(kept, [0])[0].focal == pytest.approx([245.0])
    assert kept.column("id")[0] == "02691156/n0"
    assert kept.column("class")[0] == "02691156"
    pictures = [
        "reconstruct",
        store,
        "--out",
        tmp_path / "p",
        "--count",
        1,
        "--size",
        16,
        "--jobs",
        1,
    ]
    assert run(*pictures).exit_code == 0


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_in_the_folder_is_refused_and_not_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    torch.save(Evil(), tmp_path / "nets" / "a.pth")
    torch.save(state_dict(layers_of(start())), tmp_path / "nets" / "b.pth")

    outcome = run("import", "nets", "--field", "udf", "--store", tmp_path / "ds.zarr", "--json")

    result = told(outcome, 7)
    assert result["imported"] == 1
    assert "refused" in result["failures"][0]["reason"]
    assert not (tmp_path / "pwned").exists()


def test_damage_of_every_kind_is_reported_and_the_others_go_on(run, tmp_path):
    """The first that can be read says what the store is, whatever is wrong with those before it."""
    nets = tmp_path / "nets"
    nets.mkdir()
    ring = {"weight": torch.ones(2)}
    ring["model"] = ring
    torch.save(ring, nets / "a.pth")
    good = state_dict(layers_of(start()))
    torch.save(good, nets / "b.pth", _use_new_zipfile_serialization=False)
    (nets / "b.pth").write_bytes((nets / "b.pth").read_bytes()[:100])
    torch.save({"_x": 1}, nets / "c.pth")
    torch.save(good, nets / "d.pth")
    line = ["import", nets, "--field", "udf", "--store", tmp_path / "ds.zarr", "--json"]

    result = told(run(*line), 7)

    assert (result["imported"], result["failed"]) == (1, 3)
    assert "no tensors by name" in result["failures"][0]["reason"]


def test_an_odd_error_of_a_reader_does_not_end_the_search(run, inrs, tmp_path, monkeypatch):
    from nf2vec_cli.foreign import nf2vec_h5

    read = nf2vec_h5.read

    def odd(ref, *more, **named):
        if ref.id == "test/5":
            raise AssertionError("odd")
        return read(ref, *more, **named)

    monkeypatch.setattr(nf2vec_h5, "read", odd)
    line = ["import", inrs, "--field", "udf", "--store", tmp_path / "ds.zarr", "--json"]

    result = told(run(*line), 7)

    assert (result["imported"], result["failed"]) == (5, 1)


def test_ids_on_standard_input(run, inrs, tmp_path, monkeypatch):
    monkeypatch.chdir(inrs)

    outcome = run(
        "import",
        "-",
        "--field",
        "udf",
        "--store",
        tmp_path / "ds.zarr",
        "--json",
        stdin="train/0.h5\ntest/5.h5\n",
    )

    assert told(outcome)["imported"] == 2
