"""The commands that are tortured, each with a store to start from."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worlds import TINY, TRAINING, embedded, files, fitted, make_shapes, trained

FEW = 4


@dataclass(frozen=True)
class Victim:
    """A command that is killed, or stopped, or meets a fault.

    line: the command line for a store. most: units of work that a kill may cost. done: how many of
    them a store holds. start: what to copy the store from. then: the line that goes on afterwards,
    if it is another. replaces: the line makes anew what is there, so that what was there may be
    gone after a kill.
    """

    name: str
    line: Callable[[Path], list]
    most: int = 0
    done: Callable[[Path], int] | None = None
    start: Path | None = None
    then: Callable[[Path], list] | None = None
    replaces: bool = False


class Victims:
    """The commands by name, their stores made when they are asked for.

    Of nine objects in three shards; NAME few: of four in one.
    """

    def __init__(self, warm, world):
        self.warm, self.world = warm, world

    def __getitem__(self, name):
        verb, _, _ = name.partition(" few")
        few = verb != name
        if verb == "fit":
            return Victim(name, self.fit(few), 3, fitted)
        if verb == "train":
            return Victim(name, self.train(few), 3, trained, self.fitted(few))
        if verb == "encode":
            return Victim(name, lambda store: ["encode", store], 1, embedded, self.trained(few))
        if verb == "copy":
            source = self.trained(few)
            return Victim(name, lambda store: ["copy", source, store], 1, files)
        line = self.fit(few) if verb == "fit --force" else self.train(few)
        start = self.trained(few)
        return Victim(
            name, lambda store: [*line(store), "--force"], start=start, then=line, replaces=True
        )

    def fit(self, few):
        """Give the line that fits."""
        count = FEW if few else 9
        shapes = self.world / f"shapes.{count}"
        if not shapes.exists():
            make_shapes(shapes, count)
        one = ["--set", f"batch={FEW}"] if few else []
        return lambda store: ["fit", shapes, "--field", "sdf", "--store", store, *TINY, *one]

    def train(self, few):
        """Give the line that trains."""
        fewer = ["--set", "components=1"] if few else []
        return lambda store: ["train", store, *TRAINING, *fewer]

    def fitted(self, few):
        """Give a store of fields."""
        return self._store(f"fitted.{few}", self.fit(few), None)

    def trained(self, few):
        """Give a store of fields and an encoder."""
        return self._store(f"trained.{few}", self.train(few), lambda: self.fitted(few))

    def _store(self, name, line, start):
        store = self.world / f"{name}.zarr"
        if not store.exists():
            if start:
                shutil.copytree(start(), store)
            ended = self.warm.run(*line(store))
            assert ended.code == 0, ended.stderr
        return store
