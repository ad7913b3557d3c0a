import numpy as np
import pytest

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.schema import Entry, Status
from nf2vec_cli.store.store import open_store


def kinds(report):
    return sorted(finding.kind for finding in report.findings)


def weights_of(store):
    return "quantised" if store.codec == "compact" else "bits"


def test_a_sound_store_has_no_findings(filled):
    report = check_store(filled.path)

    assert report.sound
    assert (report.objects, report.fields_read) == (6, 4)


def test_a_flipped_byte_costs_its_own_row_only(filled):
    shard = filled.path / weights_of(filled) / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[50] ^= 0x10
    shard.write_bytes(bytes(data))

    found = check_store(filled.path)
    repaired = check_store(filled.path, repair=True)
    again = check_store(filled.path)

    assert [f.where for f in found.findings] == ["c/x0"]
    assert not found.sound
    assert repaired.sound
    assert again.sound
    store = open_store(filled.path)
    assert store.column("status")[:4].tolist() == [Status.QUARANTINED, 2, 2, 2]
    assert "damaged" in store.column("message")[0]


def test_a_damaged_row_is_made_again_beside_sound_ones(filled, fields):
    shard = filled.path / weights_of(filled) / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[50] ^= 0x10
    shard.write_bytes(bytes(data))
    check_store(filled.path, repair=True)
    before = filled.weights([1, 2, 3])

    store = open_store(filled.path, mode="a")
    store.commit([0], fields[:1])

    assert check_store(filled.path).sound
    assert np.array_equal(store.weights([1, 2, 3]), before)


def test_weights_of_another_digest_are_found(filled):
    filled.update([2], digest=[b"\0" * 16])

    (finding,) = check_store(filled.path).findings

    assert (finding.kind, finding.where) == ("field", "c/x2")


def test_weights_that_are_not_finite_are_found(make, fields):
    store = make(codec="exact")
    rows = store.register([Entry("a", "a"), Entry("b", "b")])
    fields[1, 5] = np.nan
    store.commit(rows, fields[:2], transform=np.ones((2, 4)))

    report = check_store(store.path)

    assert [(f.kind, f.where) for f in report.findings] == [("field", "b")]


def test_leftovers_are_found_and_swept(filled):
    (filled.path / "init" / "c" / "0.abc.partial").write_bytes(b"x")

    assert kinds(check_store(filled.path)) == ["leftover"]
    assert check_store(filled.path, repair=True).sound
    assert check_store(filled.path).findings == ()


def test_rows_of_a_run_that_was_killed_before_they_counted_are_cut(filled):
    filled.group["error"].resize((20,))

    assert kinds(check_store(filled.path)) == ["leftover"]
    assert check_store(filled.path, repair=True).sound
    assert check_store(filled.path).findings == ()


def test_a_column_that_is_too_short_is_found(filled):
    filled.group["error"].resize((3,))

    assert "length" in kinds(check_store(filled.path))


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [("status", [9], "status"), ("id", ["c/x1"], "id"), ("error", [np.nan], "record")],
)
def test_columns_that_make_no_sense_are_found(filled, column, value, kind):
    filled.update([0], **{column: value})

    assert kind in kinds(check_store(filled.path))


def test_a_column_that_is_gone_or_damaged_is_found(filled):
    chunk = filled.path / "error" / "c" / "0"
    chunk.write_bytes(b"\0" * 9)
    assert kinds(check_store(filled.path)) == ["array"]

    (filled.path / "seed" / "zarr.json").unlink()
    assert kinds(check_store(filled.path)) == ["array", "array"]


def test_an_init_of_another_hash_is_found(filled):
    import zarr

    zarr.open_group(filled.path, mode="r+")["init"][0] = 7.0

    assert kinds(check_store(filled.path)) == ["init"]
