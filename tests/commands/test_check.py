import json

from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store


def flip_a_byte_of_weights(store):
    (shard,) = (store / "quantised").rglob("c/0/0")
    data = bytearray(shard.read_bytes())
    data[1000] ^= 0xFF
    shard.write_bytes(bytes(data))


def test_a_sound_store_is_code_0(run, fitted):
    outcome = run("check", fitted, "--json")

    report = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert report["sound"]
    assert report["fields_read"] == 3
    assert report["findings"] == []


def test_damage_is_found_set_aside_and_fitted_anew(run, folder, fitted):
    good = open_store(fitted).weights([1, 2])
    flip_a_byte_of_weights(fitted)

    found = run("check", fitted, "--json")
    repaired = run("check", fitted, "--repair", "--json")
    store = open_store(fitted)
    statuses = store.column("status")[:3].tolist()
    again = run("fit", folder, "--field", "sdf", "--store", fitted, "--json", "--jobs", "1")
    after = run("check", fitted)

    assert found.exit_code == 4
    assert "--repair" in found.stderr
    assert [f["where"] for f in json.loads(found.stdout)["findings"]] == ["chair/chair"]
    assert repaired.exit_code == 0
    assert statuses == [Status.QUARANTINED, Status.DONE, Status.DONE]
    assert json.loads(again.stdout)["fitted"] == 1
    assert after.exit_code == 0
    assert (open_store(fitted).weights([1, 2]) == good).all()
