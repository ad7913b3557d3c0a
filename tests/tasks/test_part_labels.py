import numpy as np
import pytest
from part_world import CENTRE, CLASSES, SCALE, labels_of, write_npz

from nf2vec_cli.config import SURFACE_POINTS
from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.models.network import NetworkSpec, siren_init
from nf2vec_cli.shapes.clean import Mesh
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.shapes.part_files import find_parts
from nf2vec_cli.shapes.unit import into_unit
from nf2vec_cli.store.create import create_store
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.fit_object import copied
from nf2vec_cli.tasks.part_labels import Parts, label_objects

SPEC = NetworkSpec(3, 16, 2, 1, 30.0)
NO_FACES = np.empty((0, 3), np.int64)


def ball(seed):
    points = np.random.default_rng(seed).normal(size=(SURFACE_POINTS, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def store_of(path, entries):
    """A store of balls that are not fitted, with the transforms of the others."""
    init = siren_init(SPEC, seed=0).numpy()
    create_store(
        path,
        field="sdf",
        network=SPEC.as_dict(),
        init=init,
        blocks=SPEC.blocks,
        codec="exact",
        bits=8,
        batch=8,
        config=FitConfig(hidden=16, layers=2, batch=8).model_dump(mode="json"),
        versions={},
    )
    made = open_store(path, mode="a")
    rows = made.register(entries)
    theta = np.tile(init, (len(rows), 1))
    transform = np.tile([*CENTRE, SCALE], (len(rows), 1))
    surface = np.stack([ball(n) for n in range(len(rows))]).astype(np.float32)
    made.commit(rows, theta, surface=surface, transform=transform)
    return made


def entries(splits="ttttvvee"):
    names = {"t": "train", "v": "val", "e": "test", "-": ""}
    return [
        Entry(f"{CLASSES[n % 2]}/{n}", f"{n}.ply", CLASSES[n % 2], names[split])
        for n, split in enumerate(splits)
    ]


def labelled(store, folder, space="source", rows=None):
    chosen = store.rows() if rows is None else np.asarray(rows)
    return label_objects(store, chosen, find_parts(folder), space=space)


def test_points_come_into_the_unit_space_of_the_field(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries())
    found = labelled(store, write_npz(tmp_path / "parts", store.path))

    assert found.rows.tolist() == list(range(8))
    assert found.names.classes == CLASSES[:2]
    for place, row in enumerate(found.rows):
        np.testing.assert_allclose(found.points[place], store.surface([row])[0][:120], atol=1e-5)
        name = CLASSES[row % 2]
        labels = [found.names.parts[part].label for part in found.truth[place]]
        assert labels == labels_of(found.points[place], name).tolist()
    assert [found.of(split).tolist() for split in ("train", "val", "test")] == [
        [0, 1, 2, 3],
        [4, 5],
        [6, 7],
    ]
    assert (found.unmatched, found.misplaced) == (0, 0)


def test_parts_are_numbered_class_by_class_and_kept_as_plain_values(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries())
    names = labelled(store, write_npz(tmp_path / "parts", store.path)).names

    assert [(part.class_name, part.label) for part in names.parts] == [
        ("ball", 10),
        ("ball", 11),
        ("cone", 20),
        ("cone", 21),
    ]
    assert names.of_class == {"ball": [0, 1], "cone": [2, 3]}
    assert Parts.of_facts(names.facts()) == names


def test_the_splits_of_the_data_hold_over_the_stores(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries("tttttttt"))
    split = np.array(["train", "train", "val", "test"])
    found = labelled(store, write_npz(tmp_path / "parts", store.path, split=split))

    assert sorted(found.splits.tolist()) == ["test", "test", "train"] + ["train"] * 3 + ["val"] * 2
    assert found.splits[found.rows == 7] == ["test"]


def test_clouds_of_no_object_are_left_out_and_counted(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries())
    parts = write_npz(tmp_path / "parts", store.path)

    found = labelled(store, parts, rows=[0, 1, 2, 4, 6])

    assert (found.rows.tolist(), found.unmatched) == ([0, 1, 2, 4, 6], 3)


def test_one_name_in_two_classes_goes_by_the_class(tmp_path):
    twins = [
        Entry(f"{name}/{n}", "", name, split)
        for name in CLASSES[:2]
        for n, split in enumerate(("train", "val", "test"))
    ]
    store = store_of(tmp_path / "ds.zarr", twins)

    found = labelled(store, write_npz(tmp_path / "parts", store.path))

    assert found.names.classes == ("ball", "cone")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(found.points[4], store.surface([4])[0][:120], atol=1e-5)


def test_a_name_may_be_in_the_middle_of_an_id(tmp_path):
    store = store_of(
        tmp_path / "ds.zarr",
        [Entry(f"ball/{n}/model", "", "ball", s) for n, s in enumerate(("train", "val", "test"))],
    )
    points = store.surface(range(3))[:, :50] * SCALE + CENTRE
    (tmp_path / "parts").mkdir()
    np.savez(
        tmp_path / "parts" / "ball.npz",
        points=points,
        labels=np.zeros((3, 50), int),
        names=np.array(["0", "1", "2"]),
    )

    assert labelled(store, tmp_path / "parts").rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("faces", [0, 12])
def test_a_copy_gets_its_objects_points_with_its_own_proportions(tmp_path, faces):
    store = store_of(
        tmp_path / "ds.zarr",
        [*entries("tvet"), Entry("ball/0+1", "0.ply", "ball", "train", parent="ball/0", copy=1)],
    )
    source = ball(0) * SCALE + CENTRE
    shape = Mesh(source, NO_FACES, False) if faces else Cloud(source)
    copy, centre, scale = into_unit(copied(shape, 1, 77))
    unit = copy.vertices if faces else copy.points
    theta = store.weights([4])
    store.commit(
        [4],
        theta,
        surface=unit[None].astype(np.float32),
        transform=[[*centre, scale]],
        seed=[77],
        faces=[faces],
    )
    (tmp_path / "parts").mkdir()
    np.savez(
        tmp_path / "parts" / "ball.npz",
        points=np.stack([ball(0) * SCALE + CENTRE, ball(2) * SCALE + CENTRE]),
        labels=np.zeros((2, SURFACE_POINTS), int),
        names=np.array(["0", "2"]),
    )
    write_npz(tmp_path / "parts", store.path, only=lambda row: row in (1, 3))

    found = labelled(store, tmp_path / "parts")

    assert found.rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.points[4], unit, atol=2e-5)
    assert found.of("train").tolist() == [0, 3, 4]
    assert found.is_copy.tolist() == [False] * 4 + [True]


def test_points_in_other_units_are_refused_or_moved_by_themselves(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries())
    parts = write_npz(tmp_path / "parts", store.path)
    for file in parts.iterdir():
        arrays = dict(np.load(file))
        np.savez(file, **(arrays | {"points": arrays["points"] * 3 + 1}))

    with pytest.raises(InputError, match="are not on the surfaces") as caught:
        labelled(store, parts)
    assert "--set space=own" in caught.value.hint

    found = labelled(store, parts, "own")
    # the middle of a few points of a ball is near that of the ball
    np.testing.assert_allclose(found.points[0], store.surface([0])[0][:120], atol=0.05)


def test_a_single_cloud_that_lies_elsewhere_is_left_out(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries("tttttvve"))
    parts = write_npz(tmp_path / "parts", store.path)
    arrays = dict(np.load(parts / "ball.npz"))
    arrays["points"][1] *= 1.5
    np.savez(parts / "ball.npz", **arrays)

    found = labelled(store, parts)

    assert (found.misplaced, len(found.rows)) == (1, 7)
    assert 2 not in found.rows


def test_nothing_in_common_and_empty_splits_are_refused(tmp_path):
    store = store_of(tmp_path / "ds.zarr", entries("tttttttv"))
    parts = write_npz(tmp_path / "parts", store.path)

    with pytest.raises(InputError, match=r"in split test: there are \{'train': 7, 'val': 1\}"):
        labelled(store, parts)
    with pytest.raises(InputError, match=r"none of the 8 labelled clouds .* such as '0'"):
        labelled(store, parts, rows=[])
