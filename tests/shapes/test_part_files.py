import json

import numpy as np
import pytest

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.part_files import find_parts

POINTS = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
LABELS = np.array([[2, 2, 3, 3, 3], [3, 3, 3, 3, 3], [2, 3, 2, 3, 2]], np.uint8)


def many(folder, name="dip", **changed):
    arrays = {
        "points": POINTS,
        "labels": LABELS,
        "names": np.array(["a", "b", "c"]),
        "split": np.array(["train", "val", "test"]),
    }
    np.savez(folder / f"{name}.npz", **(arrays | changed))
    return folder


def text(folder, place="90000001/a.txt", rows=None):
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    table = np.column_stack([POINTS[0], POINTS[1], LABELS[0]]) if rows is None else rows
    np.savetxt(file, table, fmt="%.6f")
    return folder


def clouds(folder):
    files = find_parts(folder)
    return list(files.read(files.refs))


def test_a_file_of_many_clouds(tmp_path):
    files = find_parts(many(tmp_path))

    found = list(files.read(files.refs))

    assert [(ref.name, ref.class_name, ref.split) for ref in files.refs] == [
        ("a", "dip", "train"),
        ("b", "dip", "val"),
        ("c", "dip", "test"),
    ]
    for number, cloud in enumerate(found):
        np.testing.assert_array_equal(cloud.points, POINTS[number].astype(float))
        np.testing.assert_array_equal(cloud.labels, LABELS[number])
    assert files.known == {}


def test_the_layout_of_shapenet_part(tmp_path):
    text(text(tmp_path), "90000002/b.txt")
    (tmp_path / "synsetoffset2category.txt").write_text("dip\t90000001\njst\t90000002\n")
    lists = tmp_path / "train_test_split"
    lists.mkdir()
    (lists / "shuffled_test_file_list.json").write_text(json.dumps(["shape_data/90000002/b"]))

    files = find_parts(tmp_path)

    assert [(ref.name, ref.class_name, ref.folder, ref.split) for ref in files.refs] == [
        ("a", "dip", "90000001", ""),
        ("b", "jst", "90000002", "test"),
    ]
    (cloud, _) = files.read(files.refs)
    np.testing.assert_allclose(cloud.points, POINTS[0], atol=1e-6)
    assert cloud.labels.tolist() == LABELS[0].tolist()  # the last column, normals left out


def test_folders_of_classes_and_splits(tmp_path):
    text(tmp_path, "dip/val/a.txt", np.column_stack([POINTS[0], LABELS[0]]))
    (tmp_path / "dip" / "train").mkdir()
    np.savez(tmp_path / "dip" / "train" / "b.npz", points=POINTS[1], labels=LABELS[1])

    files = find_parts(tmp_path)

    assert [(ref.name, ref.class_name, ref.split) for ref in files.refs] == [
        ("a", "dip", "val"),
        ("b", "dip", "train"),
    ]
    assert [cloud.labels.tolist() for cloud in files.read(files.refs)] == LABELS[:2].tolist()


def test_the_parts_are_those_that_the_data_name(tmp_path):
    named = {"labels": [{"id": n, "class": "dip", "part": f"part{n}"} for n in (2, 3, 4)]}
    (many(tmp_path) / "parts.json").write_text(json.dumps(named))
    assert find_parts(tmp_path).known == {"dip": {2: "part2", 3: "part3", 4: "part4"}}

    del named["labels"][0]
    (tmp_path / "parts.json").write_text(json.dumps(named))
    with pytest.raises(
        InputError, match="'a' has label 2, which is no part of 'dip': its parts are 3, 4"
    ):
        clouds(tmp_path)


def test_the_parts_of_shapenet_part_are_known(tmp_path):
    table = np.column_stack([POINTS[0], POINTS[1], [12, 13, 14, 15, 15]])
    text(tmp_path, "03001627/a.txt", table)
    assert list(find_parts(tmp_path).known["03001627"]) == [12, 13, 14, 15]
    clouds(tmp_path)

    table[2, -1] = 16
    with pytest.raises(InputError, match="has label 16, which is no part"):
        clouds(text(tmp_path, "03001627/a.txt", table))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": LABELS[:, :4]}, r"points \(3, 5, 3\), labels \(3, 4\)"),
        ({"labels": LABELS[0]}, r"labels \(5,\)"),
        ({"names": np.array(["a", "b"])}, r"names \(2,\)"),
        ({"points": POINTS[..., :2]}, r"points \(5, 2\)"),
        ({"points": np.where(POINTS > 2, np.nan, POINTS) * np.nan}, "points that are not finite"),
        ({"labels": LABELS - 0.5}, "label 1.5, which is no part"),
        ({"labels": LABELS.astype(int) - 3}, "label -1, which is no part"),
        ({"labels": np.full(LABELS.shape, np.inf)}, "label inf, which is no part"),
        ({"labels": LABELS.astype(str)}, "labels of type <U3, not numbers"),
        ({"names": np.array(["a", "b", None])}, "Python objects"),
        ({"names": np.array(["a", "b", "b"])}, "'b' of 'dip' is in .* a second time"),
        ({"split": np.array(["train", "dev", "test"])}, "split 'dev' of 'b'"),
        ({"split": np.array(["train"])}, r"3 names and split \(1,\)"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        clouds(many(tmp_path, **changed))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dip.npz", b"not an archive", "dip.npz cannot be read: .* no NPZ"),
        ("dip/a.txt", b"1 2 3\n4 5 6\n", "rows of 3 numbers"),
        ("dip/a.txt", b"1 2 3 1\n4 5 nan\n", "a.txt cannot be read"),
        ("dip/a.txt", b"1 2 nan 1\n", "points that are not finite"),
        ("dip/a.txt", b"", "a.txt cannot be read"),
        ("dip/a.txt", b"\xff\xfe\x00", "a.txt cannot be read"),
        ("dip/a.npz", b"PK", "a.npz cannot be read"),
        ("synsetoffset2category.txt", b"one two three", "rows other than NAME SYNSET"),
        ("parts.json", b"{", "parts.json is no JSON"),
        ("parts.json", b"[1]", "names no parts"),
        ("train_test_split/shuffled_val_file_list.json", b"{", "is no JSON"),
        ("train_test_split/shuffled_val_file_list.json", b"3", "is no list"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, message):
    text(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        clouds(tmp_path)


def test_an_object_in_two_splits_is_refused(tmp_path):
    lists = text(tmp_path) / "train_test_split"
    lists.mkdir()
    for split in ("train", "test"):
        (lists / f"shuffled_{split}_file_list.json").write_text('["shape_data/90000001/a"]')

    with pytest.raises(InputError, match="is in split train as well"):
        find_parts(tmp_path)


def test_a_folder_without_labelled_clouds_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no labelled clouds"):
        find_parts(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        find_parts(tmp_path / "gone")
