"""kill -9 at random instants: nothing that was committed is lost, and the same line goes on."""

import random
import shutil
from dataclasses import dataclass, field

import pytest
from worlds import committed, copied, faults

from nf2vec_cli.store.check import check_store

CHAIN = 4  # kills of one store, one after another, before it is left to finish


@dataclass
class Counts:
    """What became of a victim's kills."""

    kills: int = 0
    timed: int = 0
    lost: int = 0
    unreadable: int = 0
    otherwise: int = 0  # stores that ended otherwise than the one that was never killed
    redone: list = field(default_factory=list)  # units of work, for each kill
    notes: list = field(default_factory=list)

    def row(self, name):
        return {
            "what": f"kill -9 of {name}",
            "times": self.kills,
            "by the clock": self.timed,
            "lost": self.lost,
            "unreadable": self.unreadable,
            "ended otherwise": self.otherwise,
            "work redone": sum(self.redone),
            "most for a kill": max(self.redone, default=0),
        }


class Tormentor:
    """Kills a victim by the clock and by its steps on the disk in turn, and counts."""

    def __init__(self, warm, victim, world, seed):
        self.warm, self.victim, self.world = warm, victim, world
        self.rng, self.counts = random.Random(seed), Counts()
        told = world / "steps"
        twin = copied(victim, world / f"{victim.name}.twin.zarr")
        whole = warm.run(*victim.line(twin), root=twin, told=told)
        assert whole.code == 0, whole.stderr
        self.seconds, self.steps = whole.seconds, int(told.read_text())
        self.wanted = committed(twin)
        shutil.rmtree(twin)

    def kill(self, times):
        """Kill stores again and again, and let each finish after CHAIN kills."""
        number = 0
        while self.counts.kills < times:
            number += 1
            store = copied(self.victim, self.world / f"{self.victim.name}.{number}.zarr")
            was = self._held(store)
            for _ in range(min(CHAIN, times - self.counts.kills)):
                was = self._one(store, was)
                if was is None:
                    break
            self._finish(store)
            shutil.rmtree(store)

    def _one(self, store, was):
        """Kill a run; give what is there afterwards, or None if there was nothing to kill."""
        line, counts = self.victim.line(store), self.counts
        if self.rng.random() < 0.5:
            child = self.warm.start(*line)
            child.kill_after(after := self.rng.uniform(0, self.seconds))
            where, timed = f"{store.name} after {after:.3f} s", True
        else:
            at = self.rng.randint(1, self.steps)
            child = self.warm.start(*line, root=store, at=at)
            where, timed = f"{store.name} before step {at}", False
        ended = child.wait()
        if ended.code == 0:
            return None
        assert ended.code == -9, ended.stderr
        counts.kills += 1
        counts.timed += timed
        try:
            now, done = self._held(store)
            found = faults(store)
        except Exception as error:  # of whatever kind: a store that cannot be read
            (now, done), found = ({}, 0), [repr(error)]
        counts.unreadable += len(found)
        gone = [] if self.victim.replaces else [n for n in was[0] if was[0][n] != now.get(n)]
        counts.lost += len(gone)
        counts.notes += [f"{where}: {what}" for what in (*gone, *found)]
        # a file may be whole, and not be counted yet
        counts.redone.append(max(was[1] + ended.work - done, 0) if self.victim.done else 0)
        return now, done

    def _held(self, store):
        """Give what a store holds for good, and the units of work that are done."""
        return committed(store), self.victim.done(store) if self.victim.done else 0

    def _finish(self, store):
        line = self.victim.then or self.victim.line
        last = self.warm.run(*line(store))
        if last.code != 0 or committed(store) != self.wanted or check_store(store).findings:
            self.counts.otherwise += 1
            self.counts.notes.append(f"{store.name}: {last.code} {last.stderr}")


SHORT = [("fit", 2), ("train", 2), ("copy", 2)]
LONG = [
    ("fit", 80),
    ("train", 50),
    ("encode", 50),
    ("copy", 50),
    ("fit --force", 12),
    ("train --force", 8),
]


@pytest.mark.parametrize(
    ("name", "times"),
    [
        *(pytest.param(*case, id=f"{case[0]}-short") for case in SHORT),
        *(pytest.param(*case, id=f"{case[0]}-long", marks=pytest.mark.slow) for case in LONG),
    ],
)
def test_kill(warm, victims, world, tell, name, times):
    victim = victims[name]
    tormentor = Tormentor(warm, victim, world, f"{name} {times}")

    tormentor.kill(times)

    counts = tormentor.counts
    tell(counts.row(name))
    assert counts.kills == times
    assert not counts.notes, "\n".join(counts.notes)
    assert max(counts.redone) <= victim.most
