import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from near_init import heads_told
from part_world import CENTRE, CLASSES, POINTS, SCALE, make_world, quick, write_npz, write_shapenet

from nf2vec_cli.store.products import keys
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import open_embeddings

HEADS = "heads/segment"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Make a store of each kind once, with its labelled clouds beside it."""
    folder = tmp_path_factory.mktemp("worlds")
    for kind in ("sdf", "occ"):
        write_npz(folder / kind / "parts", make_world(folder / kind / "ds.zarr", kind=kind))
    return folder


@pytest.fixture
def world(worlds, tmp_path):
    shutil.copytree(worlds / "sdf", tmp_path / "world")
    return tmp_path / "world" / "ds.zarr", tmp_path / "world" / "parts"


@pytest.fixture
def solid(worlds, tmp_path):
    """Occupancy fields near an init have some surface; distances may have none."""
    shutil.copytree(worlds / "occ", tmp_path / "solid")
    return tmp_path / "solid" / "ds.zarr", tmp_path / "solid" / "parts"


def rows(outcome, code=0):
    assert outcome.exit_code == code, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def heads(store):
    folder = store / HEADS
    return (
        sorted(file.name for file in folder.iterdir() if file.is_dir()) if folder.is_dir() else []
    )


def facts(store):
    (key,) = heads(store)
    return dict(open_store(store).group[f"{HEADS}/{key}"].attrs)


def facts_of_newest(store):
    opened = open_store(store)
    return dict(opened.group[f"{HEADS}/{keys(opened, HEADS)[-1]}"].attrs)


def test_a_head_is_trained_kept_and_used_again(run, world):
    store, parts = world

    first = rows(run("segment", store, "--parts", parts, *quick(), "--json"))
    ended = facts(store)["ended"]
    second = rows(run("segment", store, "--parts", parts, *quick(), "--json"))

    assert first == second
    assert [row["id"] for row in first] == ["shape/27", "shape/28", "shape/29"]
    assert [row["class"] for row in first] == list(CLASSES)
    assert {row["split"] for row in first} == {"test"}
    assert all(row["points"] == POINTS and row["problem"] is None for row in first)
    assert np.mean([row["iou"] for row in first]) > 0.8  # the parts are half spaces of each class
    kept = facts(store)
    assert kept["ended"] == ended
    assert kept["classes"] == list(CLASSES)
    assert [part["label"] for part in kept["parts"]] == [10, 11, 20, 21, 30, 31]
    assert kept["result"]["instance_miou"] == pytest.approx(np.mean([r["iou"] for r in first]))
    assert kept["config"]["seed"] == 0
    (told,) = heads_told(run, store)
    assert (told["task"], told["key"], told["encoder"]) == (
        "segment",
        *heads(store),
        kept["encoder"],
    )
    assert (told["about"], told["metric"]) == ("6 parts", "class_miou")
    assert told["value"] == kept["result"]["class_miou"]
    assert "segment" not in " ".join(open_store(store).group["checkpoints"].group_keys())


def test_the_summary_tells_classes_and_what_was_left_out(run, world):
    store, parts = world
    arrays = dict(np.load(parts / "ball.npz"))
    names = arrays["names"].copy()
    names[0] = "nobody"
    np.savez(parts / "ball.npz", **(arrays | {"names": names}))

    outcome = run("segment", store, "--parts", parts, *quick("steps=3"))

    assert outcome.exit_code == 0, outcome.stderr
    assert "1 labelled clouds are no object of the store" in outcome.stderr
    assert all(word in outcome.stdout for word in ("class miou", "instance miou", *CLASSES))
    assert "shape/27" not in outcome.stdout


def test_force_and_other_labels_settings_and_seeds_make_another_head(run, world):
    store, parts = world
    short = quick("steps=3")
    rows(run("segment", store, "--parts", parts, *short, "--json"))
    before = facts(store)
    rows(run("segment", store, "--parts", parts, *short, "--json", "--force"))
    after = facts(store)
    assert before["ended"] != after["ended"]
    assert before["curve"]["losses"] == after["curve"]["losses"]  # same seed, same numbers

    rows(run("segment", store, "--parts", parts, *short, "--seed", "1", "--json"))
    assert len(heads(store)) == 2
    arrays = dict(np.load(parts / "cone.npz"))
    np.savez(parts / "cone.npz", **(arrays | {"labels": arrays["labels"] + 1}))
    rows(run("segment", store, "--parts", parts, *short, "--json"))
    assert len(heads(store)) == 3


def test_a_killed_training_goes_on_from_its_checkpoint(run, world, monkeypatch):
    from nf2vec_cli.tasks import loop

    store, parts = world
    short = quick("steps=12", "validate_every=4", "checkpoint_every=3")
    whole = rows(run("segment", store, "--parts", parts, *short, "--json"))
    curve = facts(store)["curve"]
    one = loop.Loop._one

    def dies(self):
        if self.step == 8:
            raise KeyboardInterrupt
        return one(self)

    monkeypatch.setattr(loop.Loop, "_one", dies)
    assert run("segment", store, "--parts", parts, *short, "--force").exit_code == 130
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(loop.Loop, "_one", lambda self: taken.append(self.step) or one(self))
    # the head that was there is whole still, and would be used: it goes
    writable = open_store(store, mode="a")
    del writable.group[f"{HEADS}/{heads(store)[0]}"]

    again = rows(run("segment", store, "--parts", parts, *short, "--json"))

    assert taken[0] == 6
    assert again == whole
    assert {k: v for k, v in facts(store)["curve"].items() if k != "seconds"} == {
        k: v for k, v in curve.items() if k != "seconds"
    }


def test_the_layout_of_shapenet_part_gives_the_same_parts(run, world, tmp_path):
    store, parts = world
    first = rows(run("segment", store, "--parts", parts, *quick("steps=5"), "--json"))

    text = write_shapenet(tmp_path / "text", store)
    second = rows(run("segment", store, "--parts", text, *quick("steps=5"), "--json"))

    assert facts_of_newest(store)["folders"] == ["90000000", "90000001", "90000002"]
    open_store(store, mode="a").update([4], **{"class": ["90000001"]})  # as its folder is named
    (alone,) = rows(run("segment", store, "--ids", "shape/4", "--jobs", "1", "--json"))
    assert alone["class"] == "cone"
    # text has six places
    assert [row["iou"] for row in second] == pytest.approx([row["iou"] for row in first], abs=0.05)


def test_clouds_are_written_with_their_parts_as_colours(run, world, tmp_path):
    store, parts = world

    found = rows(
        run("segment", store, "--parts", parts, *quick(), "--out", tmp_path / "out", "--json")
    )

    for row in found:
        cloud = trimesh.load(row["file"])
        data = cloud.metadata["_ply_raw"]["vertex"]["data"]
        number = data["part"].reshape(-1)
        unit = (cloud.vertices - CENTRE) / SCALE
        axis = CLASSES.index(row["class"])
        assert (number == (unit[:, axis] > 0)).mean() > 0.85
        assert np.linalg.norm(unit, axis=1) == pytest.approx(0.5, abs=1e-3)
        colours = {tuple(c) for c, n in zip(cloud.colors[:, :3], number, strict=True) if n == 0}
        assert colours == {(31, 119, 180)}
        header = Path(row["file"]).read_bytes()[:400].decode("ascii", "replace")
        assert f"comment part 1 colour 255 127 14 {11 + 10 * axis}" in header
        assert row["shares"][str(10 + 10 * axis)] == pytest.approx((number == 0).mean())


def test_any_number_of_points_is_drawn_from_the_fields(run, solid, tmp_path):
    store, parts = solid
    out = tmp_path / "out"
    line = ("--ids", "shape/28", "--points", "300", "--jobs", "1", "--out", out, "--json")

    found = rows(run("segment", store, "--parts", parts, *quick("steps=5"), *line))
    alone = rows(run("segment", store, *line))

    assert [(row["id"], row["points"]) for row in found] == [("shape/28", 300)]
    assert 0 < found[0]["iou"] <= 1
    cloud = trimesh.load(found[0]["file"])
    assert len(cloud.vertices) == 300
    assert np.abs((cloud.vertices - CENTRE) / SCALE).max() <= 1 + 1e-5
    # without labels: the same points and parts, and nothing to compare with
    assert alone == [found[0] | {"iou": None, "split": None}]


def test_objects_without_labels_are_told_by_the_head_alone(run, solid):
    store, parts = solid
    write_npz(parts, store, only=lambda row: row != 3)
    rows(run("segment", store, "--parts", parts, *quick("steps=5"), "--json"))
    ids = ("--ids", "shape/3", "--ids", "-", "--jobs", "1")

    found = rows(run("segment", store, *ids, "--json", stdin="shape/4\n"))

    assert [(row["id"], row["class"], row["iou"]) for row in found] == [
        ("shape/3", "ball", None),
        ("shape/4", "cone", None),
    ]
    assert [row["points"] for row in found] == [2048, 2048]


def test_an_object_that_is_an_embedding_alone_is_decoded(run, solid, monkeypatch):
    from nf2vec_cli.shapes.cloud import Cloud
    from nf2vec_cli.tasks import segment_objects
    from nf2vec_cli.tasks.decoded_field import DecodedField
    from nf2vec_cli.tasks.rebuild import Built

    store, parts = solid
    rows(run("segment", store, "--parts", parts, *quick("steps=5"), "--json"))
    kept = open_embeddings(open_store(store, mode="a"))
    kept.write_alone([3], kept.read([3]))
    seen, drawn = [], Built(Cloud(np.zeros((9, 3))), None)
    monkeypatch.setattr(
        segment_objects, "build", lambda field, *_, **__: seen.append(field) or drawn
    )

    (found,) = rows(run("segment", store, "--ids", "shape/3", "--jobs", "1", "--json"))

    assert [type(field) for field in seen] == [DecodedField]
    assert (found["id"], found["points"]) == ("shape/3", 9)


def test_without_labels_and_ids_the_heads_own_test_objects_are_asked(run, world, monkeypatch):
    from nf2vec_cli.shapes.cloud import Cloud
    from nf2vec_cli.tasks import segment_objects
    from nf2vec_cli.tasks.rebuild import Built

    store, parts = world
    rows(run("segment", store, "--parts", parts, *quick("steps=3"), "--json"))

    empty = Built(Cloud(np.empty((0, 3))), None)
    monkeypatch.setattr(segment_objects, "build", lambda *_, **__: empty)
    found = rows(run("segment", store, "--jobs", "1", "--json"), 7)

    assert [row["id"] for row in found] == ["shape/27", "shape/28", "shape/29"]
    assert {row["problem"] for row in found} == {"nothing of the field is left to draw points from"}


def test_an_object_of_another_class_is_reported_and_the_others_go_on(run, world):
    store, parts = world
    rows(run("segment", store, "--parts", parts, *quick("steps=3"), "--json"))
    open_store(store, mode="a").update([3], **{"class": ["teapot"]})
    line = ("--ids", "shape/3", "--ids", "shape/28", "--json")

    outcome = run("segment", store, "--parts", parts, *quick("steps=3"), *line)

    # its labels say what it is; without them nothing does
    assert [row["class"] for row in rows(outcome)] == ["ball", "cone"]
    alone = run("segment", store, "--ids", "shape/3", "--json")
    assert rows(alone, 7)[0]["problem"].startswith("its class 'teapot' is none that the head knows")
    assert "the parts of 1 objects were not told" in alone.stderr


def test_one_class_is_enough(run, world):
    store, parts = world
    for name in CLASSES[1:]:
        (parts / f"{name}.npz").unlink()

    found = rows(run("segment", store, "--parts", parts, *quick("steps=3"), "--json"))

    assert [row["class"] for row in found] == ["ball"]


def spoil(parts, **changed):
    arrays = dict(np.load(parts / "ball.npz"))
    np.savez(parts / "ball.npz", **(arrays | {k: change(arrays) for k, change in changed.items()}))


BAD = {
    "no object in common": (
        lambda parts: [
            (parts / f"{name}.npz").unlink() or spoil_names(parts, name) for name in CLASSES
        ],
        5,
        "is an object of",
    ),
    "labels of another length": (
        lambda parts: spoil(parts, labels=lambda a: a["labels"][:, :5]),
        5,
        "[n, M, 3], [n, M] and [n] are needed",
    ),
    "points that are not finite": (
        lambda parts: spoil(parts, points=lambda a: np.where(a["points"] > 8, np.nan, a["points"])),
        5,
        "points that are not finite",
    ),
    "labels of no part": (
        lambda parts: spoil(parts, labels=lambda a: a["labels"] * 1.01),
        5,
        "which is no part of 'ball'",
    ),
    "a pickle": (
        lambda parts: spoil(parts, names=lambda a: a["names"].astype(object)),
        5,
        "Python objects",
    ),
    "no archive": (lambda parts: (parts / "ball.npz").write_bytes(b"PK"), 5, "cannot be read"),
}


def spoil_names(parts, name):
    points = np.zeros((1, 5, 3))
    np.savez(parts / f"{name}.npz", points=points, labels=points[..., 0], names=np.array(["x"]))


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_refused_and_nothing_is_written(run, world, tmp_path, case):
    store, parts = world
    damage, code, message = BAD[case]
    damage(parts)

    outcome = run("segment", store, "--parts", parts, *quick(), "--out", tmp_path / "out")

    assert outcome.exit_code == code
    assert message in outcome.stderr
    assert outcome.stderr.startswith("error:")
    assert not (tmp_path / "out").exists()
    assert heads(store) == []


def test_wrong_lines_are_refused_and_nothing_is_written(run, world, tmp_path):
    store, parts = world
    open_store(store, mode="a").fail([4], ["it is broken"])
    cases = [
        (("--parts", parts, "--ids", "shape/4"), 4, "'shape/4' has no field: it is failed"),
        (("--parts", parts, "--ids", "nobody"), 4, "has no object 'nobody'"),
        (("--parts", tmp_path / "gone"), 5, "is no folder"),
        (("--parts", parts, "--encoder", "nope"), 4, "no embeddings by encoder 'nope'"),
        (("--parts", parts, "--set", "hidden=0"), 3, "hidden"),
        (("--parts", parts, "--head", "abc"), 2, "--head or --parts"),
        (("--parts", parts, "--device", "abacus"), 2, "abacus"),
        ((), 4, "no head that tells parts"),
        (("--head", "abc"), 4, "has no head 'abc'"),
        (("--force",), 2, "nothing to train from"),
    ]
    for line, code, message in cases:
        outcome = run("segment", store, *line, "--out", tmp_path / "out")

        assert (outcome.exit_code, message in outcome.stderr) == (code, True), outcome.stderr
    assert not (tmp_path / "out").exists()
    assert heads(store) == []


def test_a_store_with_a_head_is_sound(run, world):
    store, parts = world
    rows(run("segment", store, "--parts", parts, *quick("steps=3"), "--json"))

    assert run("check", store).exit_code == 0
    assert run("info", store).exit_code == 0


def test_config_prints_a_file_that_segment_takes(run):
    import tomllib

    from nf2vec_cli.config import Preset
    from nf2vec_cli.config.segment import SegmentConfig, segment_defaults

    printed = run("config", "segment", "--preset", "paper")

    made = SegmentConfig.model_validate(tomllib.loads(printed.stdout))
    assert made == SegmentConfig.model_validate(segment_defaults(Preset.paper))
    assert (made.hidden, made.batch, made.epochs, made.learning_rate) == (512, 256, 250, 1e-4)
