"""A disk that is full, read-only or broken: a clear error, nothing lost, and the run goes on."""

import os
import random
import shutil
import subprocess
from itertools import product

import pytest
from worlds import committed, copied, faults

ONCE_MORE = "was committed is kept"
EVERY = {"fit": 29, "train": 13, "encode": 9}  # steps between two faults of "some"
ERRORS = ("EROFS", "EACCES")
SLOW = pytest.mark.slow


class Bad:
    """What went wrong in a row of runs, counted."""

    def __init__(self):
        self.times = self.lost = self.unreadable = self.unclear = self.unfinished = 0
        self.notes = []

    def judge(self, ended, store, held, *, code=4):
        """Count what a run that met a fault has done to its store, and what it said."""
        self.times += 1
        talk = ended.stderr
        clear = ended.code == code and talk.startswith("error: ") and "\nhint: " in talk
        if not clear or "Traceback" in talk or "a bug in" in talk:
            self.unclear += 1
            self.notes.append(f"{store.name}: {ended.code} {talk[-1500:]}")
        try:
            now = committed(store)
        except Exception as error:
            self.unreadable += 1
            self.notes.append(f"{store.name}: {error!r}")
            return
        gone = [name for name in held if held[name] != now.get(name)]
        self.lost += len(gone)
        found = faults(store)
        self.unreadable += len(found)
        self.notes += [f"{store.name}: {fault}" for fault in (*gone, *found)]

    def finished(self, ended, store, wanted):
        """Count a store that the same line did not finish."""
        if ended.code or committed(store) != wanted:
            self.unfinished += 1
            self.notes.append(f"{store.name}: {ended.code} {ended.stderr}")

    def row(self, what):
        return {
            "what": what,
            "times": self.times,
            "lost": self.lost,
            "unreadable": self.unreadable,
            "unclear": self.unclear,
            "not finished by the same line": self.unfinished,
        }


def whole(warm, victim, world, **how):
    """Run a victim to its end: what its store holds, and how many steps on the disk that took."""
    told = world / "steps"
    twin = copied(victim, world / f"{victim.name}.whole.zarr")
    ended = warm.run(*victim.line(twin), root=twin, told=told, **how)
    assert ended.code == 0, ended.stderr
    held = committed(twin)
    shutil.rmtree(twin)
    return held, int(told.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("every", ["some", "each"])
@pytest.mark.parametrize("name", ["fit", "train", "encode"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"error": "EIO"}, id="write"),
        pytest.param({"error": "EIO", "reads": True}, id="read"),
        pytest.param({"error": "ENOSPC", "lasting": True}, id="full"),
    ],
)
def test_a_fault_at_each_step(warm, victims, world, tell, name, how, every):
    victim, bad = victims[f"{name} few"], Bad()
    wanted, steps = whole(warm, victim, world, **how)
    some = range(1, steps + 1) if every == "each" else range(2, steps + 1, EVERY[name])
    for at in some:
        store = copied(victim, world / f"{name}.{how['error']}.{at}.zarr")
        held = committed(store)

        ended = warm.run(*victim.line(store), root=store, at=at, **how)

        if ended.code == 0 and committed(store) == wanted:
            bad.times += 1  # it met what a run may do without, as the removal of its lock
        else:
            bad.judge(ended, store, held)
            bad.finished(warm.run(*victim.line(store)), store, wanted)
        shutil.rmtree(store)

    kind = "reading" if how.get("reads") else "writing"
    tell(bad.row(f"{how['error']} in {name}, {kind}, at {every} of {steps} steps"))
    assert not bad.notes, "\n".join(bad.notes)


@pytest.fixture
def disk(tmp_path):
    """A disk of 16 MiB, where one may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(disk, left):
    """Fill a disk but for some bytes."""
    room = os.statvfs(disk)
    size = room.f_bavail * room.f_frsize - left
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))


def size_of(store):
    """Count the bytes that a store takes on a disk of pages."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in store.rglob("*"))


@pytest.mark.parametrize(
    ("name", "times"),
    [("fit", 1), *(pytest.param(name, 12, marks=SLOW) for name in ("fit", "train", "encode"))],
)
def test_a_full_disk(warm, victims, world, disk, tell, name, times):
    victim, bad, rng = victims[f"{name} few"], Bad(), random.Random(name)
    twin = copied(victim, world / "full.zarr")
    before = size_of(twin) if twin.exists() else 0
    assert warm.run(*victim.line(twin)).code == 0
    wanted, grown = committed(twin), size_of(twin) - before
    shutil.rmtree(twin)
    for number in range(times):
        store = copied(victim, disk / f"{name}.{number}.zarr")
        held = committed(store)
        fill(disk, left=int(rng.uniform(0, 0.5) * grown))

        ended = warm.run(*victim.line(store))
        (disk / "filler").unlink()
        last = warm.run(*victim.line(store))

        if ended.code == 0:  # it had room after all
            assert committed(store) == wanted
            continue
        bad.judge(ended, store, held)
        assert "No space left" in ended.stderr
        assert ONCE_MORE in ended.stderr
        bad.finished(last, store, wanted)
        shutil.rmtree(store)
    tell(bad.row(f"a full disk (tmpfs) in {name}"))
    assert not bad.notes, "\n".join(bad.notes)
    assert bad.times >= times // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "train", "encode"])
def test_a_file_that_may_not_grow(warm, victims, world, tell, name):
    victim, bad = victims[f"{name} few"], Bad()
    store = copied(victim, world / f"{name}.limit.zarr")
    held = committed(store)

    ended = warm.run(*victim.line(store), limit=200)
    last = warm.run(*victim.line(store))

    bad.judge(ended, store, held)
    bad.finished(last, store, whole(warm, victim, world)[0])
    shutil.rmtree(store)
    tell(bad.row(f"RLIMIT_FSIZE in {name}"))
    assert not bad.notes, "\n".join(bad.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "train", "encode", "fit --force"])
def test_a_read_only_disk_is_refused_before_any_work(warm, victims, disk, tell, name):
    victim, bad = victims[name if "--force" in name else f"{name} few"], Bad()
    store = copied(victim, disk / f"{name}.zarr")
    held = committed(store)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    ended = warm.run(*victim.line(store))

    assert ended.work == 0
    assert "Read-only file system" in ended.stderr
    bad.judge(ended, store, held)
    tell(bad.row(f"a read-only disk (tmpfs) in {name}"))
    assert not bad.notes, "\n".join(bad.notes)
    if held:
        assert [warm.run(verb, store).code for verb in ("info", "check")] == [0, 0]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fit", "EACCES"),
        *(pytest.param(*case, marks=SLOW) for case in product(("fit", "train", "encode"), ERRORS)),
    ],
)
def test_a_store_that_may_not_be_written_is_refused_before_any_work(
    warm, victims, world, tell, name, error
):
    victim, bad = victims[f"{name} few"], Bad()
    store = copied(victim, world / f"{name}.{error}.zarr")
    held = committed(store)

    ended = warm.run(*victim.line(store), root=store, at=1, error=error, lasting=True)

    assert ended.work == 0
    bad.judge(ended, store, held)
    tell(bad.row(f"{error} in {name}"))
    assert not bad.notes, "\n".join(bad.notes)


@pytest.mark.slow
def test_an_encoders_file_that_cannot_be_written_is_refused_before_any_work(warm, victims, disk):
    store = copied(victims["train few"], disk / "ds.zarr")
    (disk / "file").touch()

    ended = warm.run(*victims["train few"].line(store), "--out", disk / "file" / "e.safetensors")

    assert (ended.code, ended.work) == (2, 0)
    assert ended.stderr.startswith(f"error: {disk}/file/e.safetensors cannot be written")
