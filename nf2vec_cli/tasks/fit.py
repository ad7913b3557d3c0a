"""Fit fields to shapes: plan, do, record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nf2vec_cli import __version__
from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.sine import fused_sine_available
from nf2vec_cli.errors import ConfigError, DeviceError, Nf2vecError, StoreError, UsageFault
from nf2vec_cli.fields import FieldName
from nf2vec_cli.models.network import NetworkSpec, radiance_init, siren_init
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.store.create import create_store, holds_store, shard_for
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import UNKNOWN_INIT, Store, open_store
from nf2vec_cli.tasks.commit import FitResult, Tally, by_shard
from nf2vec_cli.tasks.fit_object import Job
from nf2vec_cli.tasks.fit_radiance import fitter_of
from nf2vec_cli.tasks.optimise import network_of
from nf2vec_cli.tasks.optimise_rays import radiance_network
from nf2vec_cli.tasks.plan import NEW, Item, Plan, plan_objects
from nf2vec_cli.tasks.spread import available_cores

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
    store: Path,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    retry: bool = False,
    force: bool = False,
) -> tuple[Plan, FitConfig]:
    """Say what `fit_shapes` would do, and by which settings; writes nothing.

    Args:
        refs: the shapes, from `shapes.discover`.
        store: path of the store; it need not exist.
        field: kind of field.
        config: settings asked for; None: the store's own, or the defaults for a new store.
        retry: fit again what failed before.
        force: fit again what is done.

    Raises:
        StoreError: the store is of another field, or starts from another init.
        ConfigError: the store was made with other settings, or the field has no crops.
    """
    _refuse_settings(refs, field, config)
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
        raise _other_settings(store, kept, config)
    return plan_objects(refs, opened, retry=retry, force=force), kept


def preview_fit(
    refs: list[ShapeRef],
    store: Path,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    retry: bool = False,
    force: bool = False,
) -> FitPreview:
    """Describe what `fit_shapes` would do with the same arguments; writes nothing."""
    plan, config = plan_fit(refs, store, field=field, config=config, retry=retry, force=force)
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
    store: Path,
    *,
    field: FieldName,
    config: FitConfig | None = None,
    device: str = "auto",
    jobs: int = 0,
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
        wait: seconds to wait for another run's lock; None: not at all.
        limit: seconds that an object may take before its worker is killed, and it counts as failed;
            0: any; None: `patience`, where there are worker processes.
        graphs: several steps of the objects on a GPU as one CUDA graph.
        progress: told about each object.

    Raises:
        LockedError: another run is writing to the store.
        DeviceError: the device is not there, or has no graphs.
    """
    progress = progress or Silent()
    target = open_device(device)
    if graphs:
        _refuse_graphs(field, target)
    _refuse_settings(refs, field, config)  # before a lock makes the folder
    with store_lock(store, wait=wait, make=True):
        plan, config = plan_fit(refs, store, field=field, config=config, retry=retry, force=force)
        opened = _open_or_create(store, field, config, len(refs))
        opened.update([item.row for item in plan.relabelled], **_labels(plan.relabelled))
        items = _registered(opened, plan)
        jobs_of = _jobs(items, opened, field, config)
        workers = max(1, min(jobs or available_cores(), len(items)))
        tally = Tally(opened)
        with progress:
            progress.start(len(items), "fit")
            fit = partial(fitter_of(field), graphs=True) if graphs else fitter_of(field)
            outcomes = fit(
                jobs_of,
                opened.init,
                device=target,
                workers=workers,
                size=opened.batch,
                limit=limit_of(limit, jobs, field, config),
            )
            for batch in by_shard(items, outcomes, opened.batch, progress):
                tally.commit(batch)
        result = tally.result(plan)
        if items:
            opened.record_run(
                "fit",
                config=config.model_dump(mode="json"),
                summary=tally.summary(result) | {"roots": _roots(refs)},
                versions=versions(target, threads=1),
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


def _refuse_graphs(field: FieldName, device: torch.device) -> None:
    if field is FieldName.nerf:
        raise UsageFault(
            "rays take as many samples as they meet, which no CUDA graph can hold",
            hint="leave out `--cuda-graphs`",
        )
    if device.type != "cuda":
        raise DeviceError(
            f"CUDA graphs need a CUDA device, not {str(device)!r}",
            hint="`--device cuda`, or leave out `--cuda-graphs`",
        )


def _refuse_settings(refs: list[ShapeRef], field: FieldName, config: FitConfig | None) -> None:
    """Refuse settings without meaning: a surface that was cut is open, and has no inside."""
    pictures = field is FieldName.nerf
    if pictures and any(ref.copy for ref in refs):
        raise ConfigError(
            "a copy of other proportions has no pictures", hint="leave out `--augment`"
        )
    if config is None:
        return
    if config.background:
        colour_of(config.background)
    if config.target_error and pictures:
        raise ConfigError(
            "target_error: fits of nerf take all their steps", hint="leave out `--target-error`"
        )
    solid = field is FieldName.occ and config.occupancy == "solid"
    if config.crop < 1 and pictures:
        raise ConfigError(
            f"crop {config.crop:g} cuts surfaces, and nerf is fitted to pictures",
            hint="leave out `--crop`, or `--field udf`",
        )
    if config.crop < 1 and (field is FieldName.sdf or solid):
        kind = "solid occupancy" if solid else "sdf"
        raise ConfigError(
            f"crop {config.crop:g} leaves surfaces that are open, and {kind} needs an inside",
            hint="`--field udf` fits open surfaces",
        )


def _open_or_create(path: Path, field: FieldName, config: FitConfig, objects: int) -> Store:
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
    return sorted({str(ref.path)[: -len(ref.source)] for ref in refs})


def _labels(items: Sequence[Item]) -> dict[str, list[str]]:
    refs = [item.ref for item in items]
    return {"class": [ref.class_name for ref in refs], "split": [ref.split for ref in refs]}


def _registered(store: Store, plan: Plan) -> list[Item]:
    """Give every object a row; then sort by row, so that a shard's objects come together."""
    new = [item for item in plan.todo if item.row == NEW]
    rows = store.register(
        [
            Entry(r.id, r.source, r.class_name, r.split, r.parent, r.copy)
            for r in (item.ref for item in new)
        ]
    )
    placed = [replace(item, row=int(row)) for item, row in zip(new, rows, strict=True)]
    known = [item for item in plan.todo if item.row != NEW]
    return sorted(placed + known, key=lambda item: item.row)


def _jobs(items: list[Item], store: Store, field: FieldName, config: FitConfig) -> Iterator[Job]:
    cache = store.path.with_suffix(".views") if field is FieldName.nerf else None
    for index, item in enumerate(items):
        ref, study = item.ref, index < STUDIED
        yield Job(ref.id, ref.path, field, config, store.init_hash, ref.copy, study, cache)


# settings that name the shared init: a store has one, and fields from two cannot be compared
INIT = {"hidden", "layers", "omega", "octaves", "biases", "init_seed"}


def _other_settings(store: Path, kept: FitConfig, asked: FitConfig) -> Nf2vecError:
    ours, theirs = kept.model_dump(mode="json"), asked.model_dump(mode="json")
    differ = [k for k in ours if ours[k] != theirs[k]]
    told = "; ".join(f"{k} {ours[k]} there, {theirs[k]} asked for" for k in differ)
    if INIT & set(differ):
        return StoreError(
            f"{store} starts its fields from another init: {told}",
            hint=f"`--store {store.with_name('other.zarr')}`, or leave these settings out",
        )
    return ConfigError(
        f"{store} was made with other settings: {told}",
        hint="leave the settings out to go on as the store was begun, or name a new store",
    )
