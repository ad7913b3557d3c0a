"""Take fields that were fitted elsewhere into a store: plan, do, record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.foreign.layout import Listed, defaults_of, list_fields
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.aligned_store import least_alike
from nf2vec_cli.tasks.commit import Failure, Tally, by_shard
from nf2vec_cli.tasks.encode_shard import aligned
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.fit_object import Failed, Fitted, lost
from nf2vec_cli.tasks.import_object import ImportJob, import_object, told
from nf2vec_cli.tasks.import_store import Start, Wanted, make_store, start_of
from nf2vec_cli.tasks.plan import NEW, Item, Plan, plan_objects
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

APART = 64  # objects for which another worker process is worth its start


@dataclass(frozen=True)
class ImportPreview:
    """What a run of `import` would do: how many objects, for which reasons, as what."""

    store: str
    layout: str
    field: str
    network: str
    init: str
    codec: str
    to_import: int
    skipped: int
    failed_before: int
    reasons: dict[str, int]
    objects: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class ImportResult:
    """What a run of `import` did. aligned: of the imported fields, those close to the init."""

    imported: int
    skipped: int
    failed: int
    failed_before: int
    aligned: int
    layout: str
    init: str
    codec: str
    seconds: float
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class _Ready:
    """A plan, with what it takes to carry it out."""

    listed: Listed
    plan: Plan
    start: Start
    wanted: Wanted


def preview_import(wanted: Wanted, store: Path) -> ImportPreview:
    """Describe what `import_fields` would do with the same arguments; writes nothing."""
    ready = _planned(*_listed(wanted), store)
    start, plan = ready.start, ready.plan
    return ImportPreview(
        store=str(store),
        layout=ready.listed.layout,
        field=start.kind,
        network=told(start.spec),
        init=start.origin,
        codec=start.config.codec,
        to_import=len(plan.todo),
        skipped=plan.skipped,
        failed_before=plan.failed_before,
        reasons=plan.reasons,
        objects=tuple(
            {"id": i.ref.id, "why": i.why.value, "class": i.ref.class_name, "split": i.ref.split}
            for i in plan.todo
        ),
    )


def import_fields(
    wanted: Wanted,
    store: Path,
    *,
    jobs: int = 0,
    wait: float | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Read the fields that a store lacks, and commit them batch by batch.

    Args:
        wanted: what is to be imported.
        store: path of the store; made if it does not exist.
        jobs: worker processes; 0 for one a core.
        wait: seconds to wait for another run's lock.
        progress: told about each object.

    Raises:
        InputError: there are no fields, or none can be read.
        StoreError: the store holds other fields, or starts from another init.
        UsageFault: nothing says which kind of field they are.
        LockedError: another run is writing to the store.
    """
    progress = progress or Silent()
    listed, wanted = _listed(wanted)
    _planned(listed, wanted, store)  # refuses before a lock makes the folder
    with store_lock(store, wait=wait, make=True):
        ready = _planned(listed, wanted, store)
        start, plan = ready.start, ready.plan
        if not holds_store(store):
            make_store(store, start, ready.listed.layout, objects=len(plan.todo))
        opened = open_store(store, mode="a")
        if wanted.labels is not None:
            _relabel(opened, plan)
        items = _registered(opened, plan)
        tally, close = Tally(opened), _Close(opened)
        # a worker takes seconds to start, and reads some objects a second
        workers = max(1, min(jobs or available_cores(), len(items) // (1 if jobs else APART)))
        with progress:
            progress.start(len(items), "import")
            work = partial(import_object, init=opened.init)
            outcomes = _outcomes(spread(work, _jobs(items, ready, opened), workers=workers))
            for batch in by_shard(items, outcomes, opened.batch, progress):
                tally.commit(batch)
                close.count([o for _, o in batch if isinstance(o, Fitted)])
        failures = (*tally.failures, *(Failure(*one) for one in ready.listed.broken))
        result = ImportResult(
            tally.fitted,
            plan.skipped,
            len(failures),
            plan.failed_before,
            close.found,
            ready.listed.layout,
            start.origin,
            opened.codec,
            tally.seconds,
            failures,
        )
        if items:
            _record(opened, ready, result)
    return result


def _listed(wanted: Wanted) -> tuple[Listed, Wanted]:
    """Find the fields, and complete what is wanted by what their layout implies."""
    listed = list_fields(wanted.source, wanted.layout, root=wanted.root, labels=wanted.labels)
    given = wanted.net.model_dump(include=wanted.net.model_fields_set)
    net = ImportConfig.model_validate(defaults_of(listed.layout) | given)
    if wanted.kind and net.field and wanted.kind != net.field:
        raise UsageFault(f"--field {wanted.kind} is asked for, and the settings say {net.field}")
    return listed, replace(wanted, net=net, kind=wanted.kind or net.field)


def _planned(listed: Listed, wanted: Wanted, store: Path) -> _Ready:
    opened = open_store(store) if holds_store(store) else None
    plan = plan_objects(list(listed.refs), opened, retry=wanted.retry, force=wanted.force)
    return _Ready(listed, plan, start_of(listed, wanted, opened), wanted)


def _jobs(items: list[Item], ready: _Ready, store: Store) -> Iterator[ImportJob]:
    start, wanted = ready.start, ready.wanted
    for item in items:
        yield ImportJob(
            item.ref,
            ready.listed.layout,
            wanted.net,
            wanted.params,
            start.kind,
            start.spec,
            start.config,
            store.init_hash,
            wanted.labels is not None,
        )


def _outcomes(results: Iterator[Any]) -> Iterator[Fitted | Failed]:
    for result in results:
        yield lost(result) if isinstance(result, WorkerDied) else result


def _registered(store: Store, plan: Plan) -> list[Item]:
    """Give every object a row; then sort by row, so that a shard's objects come together."""
    new = [item for item in plan.todo if item.row == NEW]
    refs = [item.ref for item in new]
    rows = store.register([Entry(r.id, r.source, r.class_name, r.split) for r in refs])
    placed = [replace(item, row=int(row)) for item, row in zip(new, rows, strict=True)]
    known = [item for item in plan.todo if item.row != NEW]
    return sorted(placed + known, key=lambda item: item.row)


def _relabel(store: Store, plan: Plan) -> None:
    """Take over labels that a table gives; one that it does not is the file's, and stays."""
    for name, label in (("class", "class_name"), ("split", "split")):
        told = {item.row: getattr(item.ref, label) for item in plan.relabelled}
        given = {row: text for row, text in told.items() if text}
        store.update(given, **{name: list(given.values())})


class _Close:
    """Counts the fields that are as close to the init as those that started there."""

    def __init__(self, store: Store) -> None:
        self.init, self.spec, self.found = store.init, NetworkSpec(**store.network), 0
        self.least = least_alike(store)

    def count(self, fields: list[Fitted]) -> None:
        for field in fields:
            self.found += int(aligned(field.theta[None], self.init, self.spec, self.least)[0])


def _record(store: Store, ready: _Ready, result: ImportResult) -> None:
    folder = str(Path(ready.wanted.source).absolute())
    facts = {k: v for k, v in vars(result).items() if k != "failures"}
    store.record_run(
        "import",
        config=ready.wanted.net.model_dump(mode="json") | {"params": ready.wanted.params},
        summary=facts | {"folder": folder, "compact_change": ready.start.change},
        versions=versions(torch.device("cpu")),
    )
