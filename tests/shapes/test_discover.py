import os
import unicodedata
from io import StringIO
from pathlib import Path

import pytest

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.discover import discover
from nf2vec_cli.shapes.load import READABLE

OFF = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


@pytest.fixture
def make(tmp_path):
    """Write files under a folder, and give the folder."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / "shapes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(OFF)
        return tmp_path / "shapes"

    return write


def ids(refs) -> list[str]:
    return [ref.id for ref in refs]


def labels(refs) -> dict[str, tuple[str, str]]:
    return {ref.id: (ref.class_name, ref.split) for ref in refs}


def test_folders_give_class_and_split(make):
    folder = make(
        "chair/train/a.obj",
        "chair/Valid/b.off",
        "chair/validation/c.ply",
        "chair/VAL/d.stl",
        "lamp/test/e.GLB",
        "lamp/f.gltf",
        "train/sofa/g.off",
        "h.STL",
        "lamp/desk/test/deep/i.off",
    )

    assert labels(discover(folder)) == {
        "chair/train/a": ("chair", "train"),
        "chair/Valid/b": ("chair", "val"),
        "chair/validation/c": ("chair", "val"),
        "chair/VAL/d": ("chair", "val"),
        "lamp/test/e": ("lamp", "test"),
        "lamp/f": ("lamp", ""),
        "train/sofa/g": ("sofa", "train"),
        "h": ("", ""),
        "lamp/desk/test/deep/i": ("lamp", "test"),
    }


def test_refs_are_sorted_absolute_and_know_their_source(make, monkeypatch):
    folder = make("b/x.off", "a/y.off", "a b/z.off")
    monkeypatch.chdir(folder.parent)

    refs = discover("shapes")

    assert ids(refs) == sorted(ids(refs)) == ["a b/z", "a/y", "b/x"]
    assert refs[0].path == folder / "a b" / "z.off"
    assert refs[0].source == "a b/z.off"


def test_hidden_files_other_files_and_folders_named_like_meshes_are_left_out(make):
    folder = make(".hidden/a.off", ".b.off", "c.txt", "d.mtl", "e", "good.off", "dir.obj/in.off")

    assert ids(discover(folder)) == ["dir.obj/in", "good"]


def test_files_that_differ_by_suffix_only_keep_it_but_for_the_first(make):
    folder = make("a/x.stl", "a/x.obj", "a/x.PLY", "b/x.obj")

    assert {ref.id: ref.source for ref in discover(folder)} == {
        "a/x": "a/x.PLY",
        "a/x.obj": "a/x.obj",
        "a/x.stl": "a/x.stl",
        "b/x": "b/x.obj",
    }


def test_only_the_last_suffix_is_taken_off(make):
    assert ids(discover(make("part.v2.final.obj"))) == ["part.v2.final"]


def test_names_with_spaces_and_umlauts_are_kept_and_composed(make):
    loose = unicodedata.normalize("NFD", "Stühle/bäll + copy.off")
    folder = make(loose)

    (ref,) = discover(folder)

    assert ref.id == unicodedata.normalize("NFC", "Stühle/bäll + copy")
    assert ref.class_name == unicodedata.normalize("NFC", "Stühle")
    assert ref.path.read_text() == OFF


def test_a_name_composed_and_decomposed_gives_two_shapes(make):
    names = [unicodedata.normalize(form, "bäll.off") for form in ("NFC", "NFD")]

    assert ids(discover(make(*names))) == ["bäll", "bäll.off"]


def test_a_link_out_of_the_folder_is_left_out_and_one_within_is_followed(make, tmp_path, caplog):
    folder = make("a/real.off")
    (tmp_path / "secret.off").write_text(OFF)
    (folder / "out.off").symlink_to(tmp_path / "secret.off")
    (folder / "in.off").symlink_to(folder / "a" / "real.off")
    (folder / "gone.off").symlink_to(folder / "nothing.off")

    found = ids(discover(folder))

    assert found == ["a/real", "gone", "in"]
    assert "out.off" in caplog.text


def test_a_folder_that_cannot_be_read_is_told(make, monkeypatch, caplog):
    folder = make("chair/a.ply", "locked/b.ply")
    scandir = os.scandir

    def refusing(where):
        if str(where).endswith("locked"):
            raise PermissionError(13, "Permission denied", where)
        return scandir(where)

    monkeypatch.setattr(os, "scandir", refusing)

    refs = discover(folder)

    assert [ref.id for ref in refs] == ["chair/a"]
    assert "locked" in caplog.text


def test_a_link_to_a_folder_is_not_followed(make, tmp_path):
    folder = make("a/real.off")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)

    assert ids(discover(folder)) == ["a/real"]


def test_a_single_file_is_a_source(make):
    folder = make("a/x.off", "a/y.off")

    (ref,) = discover(folder / "a" / "x.off")

    assert (ref.id, ref.source) == ("x", "x.off")


def test_a_list_names_files_relative_to_itself(make):
    folder = make("chair/a b.off", "chair/c.off", "lamp/d.off")
    listing = folder / "these.txt"
    lines = [
        "# a comment",
        "",
        "chair/a b.off",
        "./lamp/../lamp/d.off",
        "lamp/d.off",
        "lamp/no.off",
    ]
    listing.write_bytes(("\r\n".join(lines) + "\r\n").encode("utf-8-sig"))

    refs = discover(listing)

    assert labels(refs) == {
        "chair/a b": ("chair", ""),
        "lamp/d": ("lamp", ""),
        "lamp/no": ("lamp", ""),
    }
    assert not refs[2].path.exists()


def test_a_list_may_name_another_root_and_files_outside_it(make, tmp_path):
    folder = make("chair/a.off", "lamp/d.off")
    listing = tmp_path / "these.lst"
    listing.write_text(f"{folder}/chair/a.off\nshapes/lamp/d.off\n")

    assert ids(discover(listing)) == ["shapes/chair/a", "shapes/lamp/d"]
    assert ids(discover(listing, root=folder)) == ["chair/a", "lamp/d"]
    outside = (folder / "lamp" / "d").relative_to("/").as_posix()
    assert sorted(ids(discover(listing, root=folder / "chair"))) == sorted(["a", outside])


def test_standard_input_gives_paths_relative_to_the_working_folder(make, monkeypatch):
    folder = make("chair/train/a.off", "b.off")
    monkeypatch.chdir(folder)

    refs = discover("-", stdin=StringIO("chair/train/a.off\n./b.off\n"))

    assert labels(refs) == {"b": ("", ""), "chair/train/a": ("chair", "train")}


def test_an_empty_standard_input_is_no_input():
    with pytest.raises(InputError, match="no shape"):
        discover("-", stdin=StringIO("\n"))


def test_nothing_to_read_says_what_was_looked_for(make, tmp_path):
    make("notes.md")
    with pytest.raises(InputError, match=r"\.obj \.off \.ply \.stl \.glb \.gltf"):
        discover(tmp_path / "shapes")
    with pytest.raises(InputError, match="not there"):
        discover(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither a folder"):
        discover(tmp_path / "shapes" / "notes.md")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"\xff\xfe\x00\x80")

    with pytest.raises(InputError, match="UTF-8"):
        discover(listing)


def labelled(make, tmp_path, text: str | bytes):
    file = tmp_path / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return labels(discover(make("chair/train/a.off", "b.off", "ä c.off"), labels=file))


def test_labels_match_by_id_or_by_file_name_and_the_rest_keep_their_own(make, tmp_path, caplog):
    text = 'split,extra,name,class\nvalid,1,b.off,lamp\nTEST,,ä c,"sofa, big"\ntrain,,gone,x\n'

    found = labelled(make, tmp_path, text.encode("utf-8-sig"))

    assert found == {
        "chair/train/a": ("chair", "train"),
        "b": ("lamp", "val"),
        "ä c": ("sofa, big", "test"),
    }
    assert "1 shapes that are not there" in caplog.text


def test_an_id_goes_before_a_file_name(make, tmp_path):
    text = "name,class,split\na,wrong,test\nchair/train/a,right,val\nb,lamp,\n"

    assert labelled(make, tmp_path, text)["chair/train/a"] == ("right", "val")


def test_labels_in_decomposed_letters_match(make, tmp_path):
    text = unicodedata.normalize("NFD", "name,class\nä c,Stühle\n")

    assert labelled(make, tmp_path, text)["ä c"] == ("Stühle", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,split\nb,test\n", "line 1: there is no column class"),
        ("id,label\nb,x\n", "no column name and no class"),
        ("", "no column name"),
        ("name,class\nb,x\na,y\nb,z\n", "line 4: 'b' is there twice"),
        ("name,class\nnobody,x\n", "names none of the 3 shapes"),
        (b"name,class\nb,\xff\n", "UTF-8"),
        ("name,class\nb," + "x" * 200_000, "field larger than"),
    ],
)
def test_a_table_of_labels_that_cannot_be_used_is_refused(make, tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        labelled(make, tmp_path, text)


def test_blank_lines_and_short_rows_in_labels_do_no_harm(make, tmp_path):
    assert labelled(make, tmp_path, "name,class,split\n\n,,\nb\n,,\n")["b"] == ("", "")


def test_a_table_of_labels_that_is_not_there_is_said_so(make, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        discover(make("a.off"), labels=tmp_path / "no.csv")


NERF = READABLE["nerf"]


def test_a_folder_of_pictures_is_one_shape_whatever_is_in_it(make):
    folder = make(
        "chair/a/transforms.json",
        "chair/a/mesh.off",
        "chair/a/train/r_0.off",
        "chair/a/deep/transforms_train.json",
        "chair/train/b/transforms_train.json",
        "chair/train/b/transforms_test.json",
        "chair/Test/c.v2/transforms_train.json",
        "lamp/d.off",
        "e/transforms_train.json",
        ".hidden/f/transforms.json",
    )

    refs = discover(folder, suffixes=NERF)

    assert labels(refs) == {
        "chair/a": ("chair", ""),
        "chair/train/b": ("chair", "train"),
        "chair/Test/c.v2": ("chair", "test"),
        "lamp/d": ("lamp", ""),
        "e": ("", ""),
    }
    assert {ref.id: ref.source for ref in refs}["chair/Test/c.v2"] == "chair/Test/c.v2"
    assert all(ref.path == folder / ref.source for ref in refs)


def test_other_kinds_of_field_look_for_meshes_in_a_folder_of_pictures(make):
    folder = make("a/transforms.json", "a/mesh.off")

    for kind in ("sdf", "udf", "occ"):
        assert ids(discover(folder, suffixes=READABLE[kind])) == ["a/mesh"]


def test_one_folder_of_pictures_is_a_source(make, monkeypatch):
    folder = make("chair/a.v1/transforms.json", "chair/a.v1/train/b/transforms.json")
    place = folder / "chair" / "a.v1"
    monkeypatch.chdir(place)

    for source in (place, f"{place}/", ".", "../a.v1"):
        (ref,) = discover(source, suffixes=NERF)
        assert (ref.id, ref.source, ref.path) == ("a.v1", "a.v1", place)
    (ref,) = discover(place, root=folder, suffixes=NERF)
    assert (ref.id, ref.class_name) == ("chair/a.v1", "chair")


def test_a_list_and_standard_input_may_name_folders_of_pictures(make, monkeypatch):
    folder = make("chair/a.v1/transforms.json", "lamp/b.off")
    lines = "chair/a.v1/\nlamp/b.off\n"
    (folder / "these.txt").write_text(lines)
    monkeypatch.chdir(folder)

    for source in (folder / "these.txt", "-"):
        refs = discover(source, suffixes=NERF, stdin=StringIO(lines))
        assert labels(refs) == {"chair/a.v1": ("chair", ""), "lamp/b": ("lamp", "")}


def test_labels_match_folders_of_pictures(make, tmp_path):
    (tmp_path / "labels.csv").write_text("name,class,split\na.v1,lamp,val\n")
    folder = make("x/a.v1/transforms.json")

    found = discover(folder, labels=tmp_path / "labels.csv", suffixes=NERF)

    assert labels(found) == {"x/a.v1": ("lamp", "val")}


def test_a_folder_and_a_mesh_of_one_name_are_two_shapes(make):
    folder = make("a/transforms.json", "a.off")

    assert {ref.id: ref.source for ref in discover(folder, suffixes=NERF)} == {
        "a": "a",
        "a.off": "a.off",
    }


def test_where_there_are_no_pictures_it_says_what_was_looked_for(make):
    with pytest.raises(InputError, match=r"transforms\*\.json"):
        discover(make("notes.md"), suffixes=NERF)
