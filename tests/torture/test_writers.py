"""Two runs at one store: one writes, the other waits or is refused, and readers see whole rows."""

import json
import random
import shutil
import signal
import time

import pytest
from worlds import committed, faults

ROUNDS = [1, pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_writers(warm, victims, world, tell, rounds):
    fit, rng = victims["fit"].line, random.Random(rounds)
    refused = waited = lost = 0
    for number in range(rounds):
        store = world / f"two.{number}.zarr"
        one, other = _halves(fit(store)[1])
        lines = [["fit", one, *fit(store)[2:], "--wait", "60"], ["fit", other, *fit(store)[2:]]]
        order = rng.sample([0, 1], 2)
        children = {which: warm.start(*lines[which]) for which in order}
        ended = {which: child.wait() for which, child in children.items()}

        assert ended[0].code == 0, ended[0].stderr
        assert ended[1].code in (0, 8), ended[1].stderr
        if ended[1].code == 8:
            refused += 1
            assert "is being written by" in ended[1].stderr
            assert "hint: wait for it with `--wait SECONDS`" in ended[1].stderr
            assert ended[1].work == 0
            assert warm.run(*lines[1]).code == 0
        else:
            waited += 1
        held = committed(store)
        lost += 9 - len(held)
        assert not faults(store)
        shutil.rmtree(store)
    tell(
        {
            "what": "two runs of fit at once",
            "times": rounds,
            "refused (8)": refused,
            "waited for": waited,
            "lost": lost,
        }
    )
    assert lost == 0


def _halves(shapes):
    """Give the files of the shapes as two lists."""
    files = sorted(shapes.rglob("*.ply"))
    lists = []
    for name, part in (("even", files[::2]), ("odd", files[1::2])):
        lists.append(shapes / f"{name}.txt")
        lists[-1].write_text("".join(f"{file}\n" for file in part))
    return lists


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [10])
def test_a_writer_waits_while_the_other_is_killed(warm, victims, world, tell, rounds):
    fit, rng, lost, longest = victims["fit"].line, random.Random(rounds), 0, 0.0
    for number in range(rounds):
        store = world / f"crash.{number}.zarr"
        one, other = _halves(fit(store)[1])
        first = warm.start("fit", one, *fit(store)[2:])
        while not (store / ".nf2vec.lock").exists() and not first.ended():
            time.sleep(0.001)
        second = warm.start("fit", other, *fit(store)[2:], "--wait", "60")
        first.kill_after(rng.uniform(0.2, 1.0))
        at = time.monotonic()
        assert first.wait().code in (-signal.SIGKILL, 0)
        before = committed(store)
        while not second.work_done() and not second.ended():
            time.sleep(0.005)
        longest = max(longest, time.monotonic() - at)
        ended = second.wait()

        assert ended.code == 0, ended.stderr
        now = committed(store)
        lost += sum(now.get(name) != value for name, value in before.items())
        assert warm.run("fit", one, *fit(store)[2:]).code == 0
        lost += 9 - len(committed(store))
        assert not faults(store)
        shutil.rmtree(store)
    tell(
        {
            "what": "a run waits while the one that writes is killed",
            "times": rounds,
            "lost": lost,
            "seconds to its first field, at most": round(longest, 2),
        }
    )
    assert lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [6])
def test_readers_while_fields_are_written(warm, victims, world, tell, rounds):
    fit, reads, seen = victims["fit"].line, 0, []
    for number in range(rounds):
        store = world / f"read.{number}.zarr"
        shutil.copytree(victims["encode"].start, store)
        assert warm.run("encode", store).code == 0
        more = world / f"more.{number}"
        if not more.exists():
            shutil.copytree(fit(store)[1], more / "b")
        writer = warm.start("fit", more, *fit(store)[2:])
        counts = []
        while not writer.ended():
            info = warm.run("info", store, "--json")
            found = warm.run("retrieve", store, "--query", "a/train/0", "--json")
            check = warm.run("check", store, "--json")
            reads += 3
            for ended in (info, found, check):
                assert ended.code == 0, (ended.stdout, ended.stderr)
                assert not ended.stderr
            counts.append(json.loads(info.stdout)["status"]["done"])
        assert writer.wait().code == 0
        assert counts == sorted(counts)
        assert set(counts) <= {9, 12, 15, 18}, counts
        seen += counts
        shutil.rmtree(store)
    tell(
        {
            "what": "info, retrieve and check while fit writes",
            "times": reads,
            "crashed or found half a row": 0,
            "counts of fields seen": sorted(set(seen)),
        }
    )
