"""The store that `align` makes: all objects of another, some in other weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.create import create_store, free_name, holds_store, named, with_ending
from nf2vec_cli.store.durable import PARTIAL
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import CHECKPOINTS, EMBEDDINGS, ENCODERS, HEADS
from nf2vec_cli.store.schema import BESIDE, COLUMNS, SURFACE, Entry, Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.sources import roots_of

if TYPE_CHECKING:
    from nf2vec_cli.tasks.align import AlignResult

KIND = "align"
COUNTS = ("fields", "left", "aligned", "failed", "strangers")
TOLD = (*COUNTS, "before", "after", "matrices", "chance")  # what is kept of a run
REGISTERED = ("id", "source", "class", "split", "parent", "copy")
LEARNT = (ENCODERS, HEADS)  # what was learned from a store's fields knows those of its copy too
COPIED = (f"{ENCODERS}/*", f"{HEADS}/*/*")  # so these may be the store's own
PLACES = (*COPIED, f"{EMBEDDINGS}/*", f"{CHECKPOINTS}/*")  # no run tells what is in here


def check_free(out: Path, store: Store) -> None:
    """See that a store can be made at `out`: there is nothing, or what `align` made.

    Raises:
        StoreError: something is there that stays.
    """
    other = _elsewhere(out, store)
    place, home = out.resolve(), store.path.resolve()
    if place != home and (place.is_relative_to(home) or home.is_relative_to(place)):
        raise StoreError(
            f"{out} and the store {store.path} would lie in each other",
            hint=_elsewhere(with_ending(store.path, "-aligned"), store),
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if place == home:
        raise StoreError(f"{out} is the store itself, which stays as it is", hint=other)
    if not holds_store(out):
        raise StoreError(f"{out} is there already, and is no store", hint=other)
    kinds = [run["kind"] for run in open_store(out).runs()]
    if set(kinds) != {KIND}:
        raise StoreError(f"{out} holds fields that `align` did not make: it is kept", hint=other)


def check_unused(out: Path, store: Store) -> None:
    """See that nothing is lost with what `align` made at `out`: neither embedded nor learned there.

    Raises:
        StoreError: something was.
    """
    added = _learnt(out, *PLACES) - _learnt(store.path, *COPIED)
    if added:
        raise StoreError(
            f"{out} has {sorted(added)[0]!r}, which `align` did not make: it is kept",
            hint=_elsewhere(out, store),
        )


def _elsewhere(out: Path, store: Store) -> str:
    return f"`nf2vec align {store.path} --out {free_name(out)}`"


def _learnt(path: Path, *patterns: str) -> set[str]:
    found = (group for pattern in patterns for group in path.glob(f"{pattern}/zarr.json"))
    return {group.parent.relative_to(path).as_posix() for group in found}


def already_there(out: Path, product: str, store: Store) -> dict[str, Any] | None:
    """Give what was told of the run that made this very store; None: it is not there.

    Raises:
        StoreError: what `align` made there is something else.
    """
    if not holds_store(out):
        return None
    told = open_store(out).runs()[-1]["summary"]
    if told["product"] != product:
        check_unused(out, store)  # where `--force` would not help either
        raise StoreError(
            f"{out} is there already, made of other fields or settings",
            hint="`--force` replaces it, `--out` names another",
        )
    return {name: told[name] for name in TOLD}


def least_alike(store: Store) -> float | None:
    """Give the correlation of matrices with the init below which `align` calls fields strange.

    None: `align` did not make this store.
    """
    runs = [run for run in store.runs() if run["kind"] == KIND]
    return runs[-1]["config"]["chance"] * runs[-1]["summary"]["chance"] if runs else None


class AlignedStore:
    """A copy of a store under way: rows that are `put` have other weights, all others their own.

    It is written under another name, shard by shard, and takes its place when it is whole: a run
    that is killed leaves what was there. All bits of the weights are kept.
    """

    def __init__(self, source: Store, out: Path) -> None:
        out = named(out)
        self.source, self.out = source, out
        out.parent.mkdir(parents=True, exist_ok=True)
        self.part = out.with_name(f".{out.name}.part")
        shutil.rmtree(self.part, ignore_errors=True)
        create_store(
            self.part,
            field=source.field,
            network=source.network,
            init=source.init,
            blocks=source.blocks.tolist(),
            codec="exact",
            bits=source.bits,
            batch=source.batch,
            shard_length=source.shard_length,
            config=source.config | {"codec": "exact"},
            versions=versions(torch.device("cpu")),
            cells=source.config["grid"] if source.field == "nerf" else 0,
            imported=source.imported or None,
        )
        self.made = open_store(self.part, mode="a")
        self.rows = source.rows()  # a row's place in here is its row in the copy
        self.status = source.column("status")[self.rows]
        self.waiting: dict[int, Floats] = {}
        self.next = 0  # the first row of the copy that is not written
        self._register()

    def put(self, row: int, theta: Floats | None) -> None:
        """Give weights [P] of a row of the source, rows rising; None: its own."""
        place = int(np.searchsorted(self.rows, row))
        self._write(place // self.source.batch * self.source.batch)
        if theta is not None:
            self.waiting[place] = theta

    def finish(self, config: dict[str, Any], product: str, result: AlignResult) -> None:
        """Write what is left, record the run, and put the store in its place."""
        self._write(len(self.rows))
        known = {
            "product": product,
            "roots": [str(root) for root in roots_of(self.source)],
            "from": str(self.source.path),
        }
        self.made.record_run(
            KIND,
            config=config,
            summary={name: getattr(result, name) for name in TOLD} | known,
            versions=versions(torch.device("cpu")),
        )
        for name in LEARNT:
            if (self.source.path / name).is_dir():
                shutil.copytree(
                    self.source.path / name,
                    self.part / name,
                    ignore=shutil.ignore_patterns(f"*{PARTIAL}"),
                )
        if self.out.exists():
            with store_lock(self.out):  # not while another run writes there
                check_unused(self.out, self.source)  # nor what it has written by now
            shutil.rmtree(self.out)
        self.part.rename(self.out)

    def _register(self) -> None:
        labels = [self.source.column(n) for n in REGISTERED]
        self.made.register([Entry(*(column[row] for column in labels)) for row in self.rows])
        others = [n for n in COLUMNS if n not in (*REGISTERED, "status", "digest")]
        places = range(len(self.rows))
        for name in others:
            column = self.source.column(name)
            self.made.update(places, **{name: [column[row] for row in self.rows]})
        undone = np.flatnonzero(self.status != Status.DONE)
        self.made.update(undone, status=self.status[undone])

    def _write(self, end: int) -> None:
        """Write the shards before a row of the copy."""
        batch = self.source.batch
        for first in range(self.next, end, batch):
            places = np.arange(first, min(first + batch, len(self.rows)))
            places = places[self.status[places] == Status.DONE]
            if not len(places):
                continue
            rows = self.rows[places]
            weights = self.source.weights(rows)
            for at, place in enumerate(places.tolist()):
                weights[at] = self.waiting.pop(place, weights[at])
            kept = [n for n in BESIDE if n != SURFACE and n in self.made.group]
            self.made.commit(
                places,
                weights,
                surface=self.source.surface(rows),
                beside={name: self.source.packed(name, rows) for name in kept},
            )
        self.next = max(self.next, end)
