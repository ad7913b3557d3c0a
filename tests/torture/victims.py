"""The commands that are tortured, each with a store to start from."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worlds import TINY, TRAINING, make_shapes

FEW = 4


@dataclass(frozen=True)
class Victim:
    """A command that is killed, or stopped, or meets a fault.

    line: the command line for a store. most: units of work that a kill may cost. start: what to
    copy the store from. then: the line that goes on afterwards, if it is another. replaces: the
    line makes anew what is there, so that what was there may be gone after a kill.
    """

    name: str
    line: Callable[[Path], list]
    most: int
    start: Path | None = None
    then: Callable[[Path], list] | None = None
    replaces: bool = False


def make_victims(warm, world):
    """Give the commands by name: of nine objects in three shards, and (NAME few) of four in one."""
    made = _three(warm, world / "nine", 9) | {
        f"{name} few": victim for name, victim in _three(warm, world / "few", FEW).items()
    }
    fit, train, trained = made["fit"].line, made["train"].line, made["encode"].start
    again = (
        Victim("fit --force", lambda s: [*fit(s), "--force"], 3, trained, fit, replaces=True),
        Victim("train --force", lambda s: [*train(s), "--force"], 3, trained, train, replaces=True),
    )
    return made | {victim.name: victim for victim in again}


def _three(warm, world, count):
    shapes = make_shapes(world / "shapes", count)

    def fit(store):
        whole = ["--set", f"batch={count}"] if count == FEW else []
        return ["fit", shapes, "--field", "sdf", "--store", store, *TINY, *whole]

    def train(store):
        fewer = ["--set", "components=1"] if count == FEW else []
        return ["train", store, *TRAINING, *fewer]

    fitted, trained = world / "fitted.zarr", world / "trained.zarr"
    for store, line in ((fitted, fit), (trained, train)):
        if store is trained:
            shutil.copytree(fitted, trained)
        ended = warm.run(*line(store))
        assert ended.code == 0, ended.stderr
    name = "" if count != FEW else " few"
    return {
        "fit": Victim(f"fit{name}", fit, 3),
        "train": Victim(f"train{name}", train, 3, fitted),
        "encode": Victim(f"encode{name}", lambda store: ["encode", store], 1, trained),
    }
