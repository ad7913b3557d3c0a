"""Fit fields to shapes: plan, do, record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from nf2vec_cli import __version__
from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.sine import fused_sine_available
from nf2vec_cli.errors import StoreError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.models.network import NetworkSpec, radiance_init, siren_init
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.create import create_store, holds_store, shard_for
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.place import Place, absolute, beside
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import UNKNOWN_INIT, Store, open_store
from nf2vec_cli.tasks.cluster import open_cluster
from nf2vec_cli.tasks.commit import FitResult, Tally, by_shard
from nf2vec_cli.tasks.fit_object import Job
from nf2vec_cli.tasks.fit_radiance import fitter_of
from nf2vec_cli.tasks.fit_settings import other_settings, refuse_graphs, refuse_settings
from nf2vec_cli.tasks.optimise import network_of
from nf2vec_cli.tasks.optimise_rays import radiance_network
from nf2vec_cli.tasks.plan import NEW, Item, Plan, placed, plan_objects
from nf2vec_cli.tasks.share import Share, Turns
from nf2vec_cli.tasks.spread import workers_for

STUDIED = 8  # objects of a run on which every codec is measured
READING = 600.0  # seconds to read and sample an object; a mesh of millions of faces takes minutes
SLOW = 1e9  # operations a second of a fit; a core of today does thirty times as many


@dataclass(frozen=True)
class FitPreview:
    """What a run of `fit` would do: how many objects, for which reasons, by which settings."""

    store: str
    field: str
    to_fit: int
    skipped: int
    failed_before: int
    reasons: dict[str, int]
    settings: dict[str, Any]
    objects: tuple[dict[str, str], ...]


def plan_fit(
    refs: list[ShapeRef],
    store: Place,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    retry: bool = False,
    force: bool = False,
    share: Share | None = None,
) -> tuple[Plan, FitConfig]:
    """Say what `fit_shapes` would do, and by which settings; writes nothing.

    Args:
        refs: the shapes, from `shapes.discover`.
        store: path of the store; it need not exist.
        field: kind of field.
        config: settings asked for; None: the store's own, or the defaults for a new store.
        retry: fit again what failed before.
        force: fit again what is done.
        share: plan this share of the store's rows alone, and all that has no row yet.

    Raises:
        StoreError: the store is of another field, or starts from another init.
        ConfigError: the store was made with other settings, or the field has no crops.
    """
    refuse_settings(refs, field, config)
    opened = open_store(store) if holds_store(store) else None
    if opened is None:
        default = FitConfig(**fit_defaults(Preset.small, Recipe.fast, field))
        return plan_objects(refs, None), config or default
    if opened.field != field:
        raise StoreError(
            f"{store} holds {opened.field} fields, not {field}",
            hint=f"choose another store, or `--field {opened.field}`",
        )
    kept = fit_config(opened)
    if opened.imported and (
        opened.imported["init"] == UNKNOWN_INIT or opened.network != _network(field, kept).as_dict()
    ):
        raise StoreError(
            f"{store} holds fields from elsewhere, and no fit can make more of their kind",
            hint=f"`--store {store.with_name('other.zarr')}`",
        )
    if config is not None and config != kept:
        raise other_settings(store, kept, config)
    return plan_objects(refs, opened, retry=retry, force=force, share=share), kept


def preview_fit(
    refs: list[ShapeRef],
    store: Place,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    retry: bool = False,
    force: bool = False,
    share: Share | None = None,
) -> FitPreview:
    """Describe what `fit_shapes` would do with the same arguments; writes nothing."""
    plan, config = plan_fit(
        refs, store, field=field, config=config, retry=retry, force=force, share=share
    )
    if share is not None:  # new objects have no rows yet: those that they would be given
        first = open_store(store).next_row if holds_store(store) else 0
        plan = replace(plan, todo=tuple(_owned(placed(plan, first), share, config.batch)))
    return FitPreview(
        store=str(store),
        field=field,
        to_fit=len(plan.todo),
        skipped=plan.skipped,
        failed_before=plan.failed_before,
        reasons=plan.reasons,
        settings=config.model_dump(mode="json"),
        objects=tuple(
            {"id": i.ref.id, "why": i.why.value, "class": i.ref.class_name, "split": i.ref.split}
            for i in plan.todo
        ),
    )


def fit_shapes(
    refs: list[ShapeRef],
    store: Place,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    device: str = "auto",
    jobs: int = 0,
    ray: str | None = None,
    share: Share | None = None,
    retry: bool = False,
    force: bool = False,
    wait: float | None = None,
    limit: float | None = None,
    graphs: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Fit one field to each shape that the store lacks, and commit them batch by batch.

    Args:
        refs, store, field, config, retry, force: as for `plan_fit`.
        device: "cpu", "cuda", "cuda:N" or "auto".
        jobs: worker processes; 0 for one a core; 1: this process, if there is no `limit`.
        ray: cluster that works instead, as `open_cluster` takes it; this process alone writes.
        share: what this process does of a plan that several work at. They write in turn.
        wait: seconds to wait for another run's lock; None: not at all, or as `Turns` has it.
        limit: seconds that an object may take before its worker is killed, and it counts as failed;
            0: any; None: `patience`, where there are worker processes.
        graphs: several steps of the objects on a GPU as one CUDA graph.
        progress: told about each object.

    Raises:
        LockedError: another run is writing to the store.
        DeviceError: the device is not there, or has no graphs.
    """
    progress = progress or Silent()
    refuse_settings(refs, field, config)  # before a lock makes the folder
    turns = Turns(store, share, wait)
    with open_cluster(ray, device=device, jobs=jobs) as cluster:
        target = cluster.device if cluster else open_device(device)
        if graphs:
            refuse_graphs(field, target)
        with turns.run(make=True), progress:
            with turns.write(make=True):
                plan, config = plan_fit(
                    *(refs, store),
                    field=field,
                    config=config,
                    retry=retry,
                    force=force,
                    share=share,
                )
                opened = _open_or_create(store, field, config, len(refs))
                opened.update([item.row for item in plan.relabelled], **_labels(plan.relabelled))
                items = _owned(_registered(opened, plan), share, opened.batch)
            progress.start(len(items), "fit")
            outcomes = (partial(fitter_of(field), graphs=True) if graphs else fitter_of(field))(
                _jobs(items, opened, field, config),
                opened.init,
                device=target,
                workers=workers_for(len(items), jobs, cluster),
                size=opened.batch,
                limit=limit_of(limit, jobs, field, config),
            )
            tally = Tally(opened, shared=share is not None)
            for batch in by_shard(items, outcomes, opened.batch, progress):
                with turns.write():
                    tally.commit(batch)
            result = tally.result(plan)
            if items:
                who = {} if share is None else {"share": str(share)}
                with turns.write():
                    opened.record_run(
                        "fit",
                        config=config.model_dump(mode="json"),
                        summary=tally.summary(result) | {"roots": _roots(refs)} | who,
                        versions=versions(target, threads=1)
                        | (cluster.versions if cluster else {}),
                    )
    return result


def patience(field: FieldName, config: FitConfig) -> float:
    """Give the seconds that an object may take: to be read, and to be fitted on a slow core."""
    points = config.step_samples if field is FieldName.nerf else config.points
    products = 6 * config.steps * points * _network(field, config).parameters
    return READING + products / SLOW


def limit_of(asked: float | None, jobs: int, field: FieldName, config: FitConfig) -> float | None:
    """Give the seconds after which an object is given up; None: it is waited for."""
    if asked is None and jobs != 1:
        return patience(field, config)
    return asked or None


def versions(device: torch.device, *, threads: int | None = None) -> dict[str, str]:
    """Name what the numbers of a run depend on; threads: of its work, if not torch's number."""
    return {
        "nf2vec": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": str(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(threads or torch.get_num_threads()),
        "sine": "numba" if fused_sine_available() else "torch",
    }


def _open_or_create(path: Place, field: FieldName, config: FitConfig, objects: int) -> Store:
    if not holds_store(path):
        spec = _network(field, config)
        start = radiance_init if field is FieldName.nerf else siren_init
        create_store(
            path,
            field=field,
            network=spec.as_dict(),
            init=start(spec, seed=config.init_seed).numpy(),
            blocks=spec.blocks,
            codec=config.codec,
            bits=config.bits,
            batch=config.batch,
            shard_length=config.shard_length
            or shard_for(
                objects, batch=config.batch, codec=config.codec, radiance=field is FieldName.nerf
            ),
            config=config.model_dump(mode="json"),
            versions={"nf2vec": __version__, "torch": torch.__version__},
            cells=config.grid if field is FieldName.nerf else 0,
        )
    return open_store(path, mode="a")


def _network(field: FieldName, config: FitConfig) -> NetworkSpec:
    return radiance_network(config) if field is FieldName.nerf else network_of(config)


def _roots(refs: list[ShapeRef]) -> list[str]:
    """Folders that the sources' paths are relative to: `reconstruct` looks there."""
    return sorted({ref.place[: -len(ref.source)] for ref in refs})


def _labels(items: Sequence[Item]) -> dict[str, list[str]]:
    refs = [item.ref for item in items]
    return {"class": [ref.class_name for ref in refs], "split": [ref.split for ref in refs]}


def _registered(store: Store, plan: Plan) -> list[Item]:
    """Give every object a row."""
    refs = [item.ref for item in plan.todo if item.row == NEW]
    first = store.next_row
    store.register([Entry(r.id, r.source, r.class_name, r.split, r.parent, r.copy) for r in refs])
    return placed(plan, first)


def _owned(items: list[Item], share: Share | None, batch: int) -> list[Item]:
    return [item for item in items if share is None or share.owns(item.row // batch)]


def _jobs(items: list[Item], store: Store, field: FieldName, config: FitConfig) -> Iterator[Job]:
    # whole paths: a worker of a cluster runs in another folder
    cache = beside(absolute(store.path), ".views") if field is FieldName.nerf else None
    for index, item in enumerate(items):
        ref, study = item.ref, index < STUDIED
        path = ref.path.absolute()
        yield Job(ref.id, path, field, config, store.init_hash, ref.copy, study, cache)
