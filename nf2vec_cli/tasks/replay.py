"""Refit objects from a store's record, and compare what comes out with what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.march import Rays
from nf2vec_cli.errors import StoreError
from nf2vec_cli.fields import FieldName
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.store.codec import Floats, decode, digests, encode
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.radiance import read_cameras, read_grids, unpack_grids
from nf2vec_cli.store.schema import GRID
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.aligned_store import KIND as ALIGNED
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.fit import limit_of, versions
from nf2vec_cli.tasks.fit_object import (
    Failed,
    Fitted,
    Job,
    Prepared,
    prepare,
    product_key,
    reason_of,
    some_near,
)
from nf2vec_cli.tasks.fit_radiance import fitter_of
from nf2vec_cli.tasks.open_fields import require_fitted
from nf2vec_cli.tasks.optimise import object_seed
from nf2vec_cli.tasks.radiance_cloud import picture_rays
from nf2vec_cli.tasks.radiance_field import RadianceField
from nf2vec_cli.tasks.sources import roots_of, sources_of
from nf2vec_cli.tasks.spread import workers_for

# Rounding in another order (another sine, other threads, another BLAS) grows over the steps of a
# fit. By torch's sine in place of numba's the fields of two SDFs came 0.04 and 0.19 of their error
# apart, and their errors 0.3 %; two threads gave the same bits (128 units, 150 steps)
TOLERANCE = 0.5  # mean difference of the two fields, over the stored field's error
WORSE = 1.1  # error of the refit over that of the stored field
PIXELS = 100  # of the longer side of a view held out, at most


class Verdict(StrEnum):
    """How a refit compares with the stored field."""

    same = "same"  # bit for bit, as they are stored
    close = "close"  # within the tolerance
    different = "different"
    impossible = "impossible"  # there is no refit


@dataclass(frozen=True)
class Replayed:
    """One object, refitted.

    weights: largest difference of a weight, after the codec. field: mean difference of the two
    fields at points near the surface; of radiance, of colours on the views held out. share: that,
    over `error`, the stored field's; refit_error: the refit's. versions: what differs between here
    and the runs that fitted the store. problem: why there is no refit, or no like one.
    """

    id: str
    verdict: Verdict
    weights: float | None = None
    field: float | None = None
    share: float | None = None
    error: float | None = None
    refit_error: float | None = None
    versions: str = ""
    problem: str | None = None

    @property
    def reproduced(self) -> bool:
        """Whether the record gives the field again, within the tolerance."""
        return self.verdict in (Verdict.same, Verdict.close)


def replay(
    path: Place,
    ids: Sequence[str],
    *,
    sources: Path | None = None,
    device: str | None = None,
    jobs: int = 0,
    progress: Progress | None = None,
) -> Iterator[Replayed]:
    """Refit objects by the store's settings, and compare each with its stored field.

    Writes nothing. Sources are looked for where they were, and must have the content that was
    fitted; settings and seed must be those that the row's own key and seed are of.

    Args:
        path: the store.
        ids: objects, by id.
        sources: folder that holds the sources, if they were moved.
        device: to fit on; None: the kind that the store was fitted on.
        jobs: worker processes; 0 for one a core.
        progress: told about each object.

    Raises:
        StoreError: an id is unknown or not fitted, or the fields were not fitted here.
        DeviceError: the device is not there.
    """
    store = open_store(path)
    rows = store.find(ids)
    require_fitted(store, rows)
    fits = _fits(store)
    target = open_device(device or _device(fits))
    record = _Record(store, sources, _differences(fits, versions(target, threads=1)))
    found = {int(row): record.job(int(row)) for row in rows}
    sound = [job for job in found.values() if isinstance(job, Job)]
    fit = fitter_of(store.field)
    with progress or Silent() as teller:
        teller.start(len(rows), "refit")
        outcomes = iter(
            fit(
                iter(sound),
                store.init,
                device=target,
                workers=workers_for(len(sound), jobs, None),
                size=store.batch,
                limit=limit_of(None, jobs, FieldName(store.field), record.config),
            )
        )
        for row, job in found.items():
            yield record.compared(row, job, next(outcomes)) if isinstance(job, Job) else job
            teller.advance(1)


class _Record:
    """What a store knows of its fits, and how a refit compares with them."""

    def __init__(self, store: Store, sources: Path | None, told: str) -> None:
        self.store, self.told = store, told
        self.roots = (sources,) if sources else roots_of(store)
        self.config = fit_config(store)
        names = ("id", "source", "copy", "seed", "hash", "key", "digest", "error", "steps")
        self.column: dict[str, Any] = {name: store.column(name) for name in names}
        self.fail = partial(Replayed, verdict=Verdict.impossible, versions=told)

    def job(self, row: int) -> Job | Replayed:
        """Give what is to be fitted, or why it cannot be."""
        name, store = self.column["id"][row], self.store
        if not self.column["steps"][row]:
            return self.fail(name, problem="it was fitted elsewhere: nothing tells how")
        stored = digests(store.stored([row]))[0]
        if stored.tobytes() != np.asarray(self.column["digest"][row]).tobytes():
            hint = f"`nf2vec check {store.path}` tells more"
            return self.fail(name, problem=f"its weights are not those that were stored: {hint}")
        places = sources_of(self.roots, self.column["source"][row])
        source = next((place for place in places if place.exists()), None)
        if source is None:
            gone = f"its source {self.column['source'][row]!r} is gone"
            return self.fail(name, problem=f"{gone}: `--sources DIR` where it was moved")
        job = Job(
            *(name, source, store.field, self.config, store.init_hash),
            copy=int(self.column["copy"][row]),
        )
        problem = self._changed(row, job)
        return job if problem is None else self.fail(name, problem=problem)

    def compared(self, row: int, job: Job, refit: Fitted | Failed) -> Replayed:
        """Compare a refit with what is stored."""
        store = self.store
        if isinstance(refit, Failed):
            return self.fail(job.id, problem=f"the refit failed: {refit.reason}")
        coded = encode(refit.theta[None], store.init, store.blocks, store.codec, store.bits)
        grid = refit.beside.get(GRID)
        alike = grid is None or np.array_equal(grid, store.packed(GRID, [row])[0])
        if alike and np.array_equal(digests(coded), digests(store.stored([row]))):
            return Replayed(job.id, Verdict.same, versions=self.told)
        theirs = store.weights([row])[0]
        ours = decode(coded, store.init, store.blocks)[0]
        error = float(self.column["error"][row])
        refit_error = float(refit.columns["error"])
        if store.field == FieldName.nerf:
            assert grid is not None  # radiance has one
            field = self._colours_apart(row, theirs, ours, unpack_grids(grid[None])[0])
        else:
            field = self._values_apart(job, theirs, ours)
        close = field <= TOLERANCE * error and refit_error <= WORSE * error
        return Replayed(
            job.id,
            Verdict.close if close else Verdict.different,
            weights=float(np.abs(theirs - ours).max()),
            field=field,
            share=field / error if error else None,
            error=error,
            refit_error=refit_error,
            versions=self.told,
            problem=None if close else "the record gives another field",
        )

    def _changed(self, row: int, job: Job) -> str | None:
        """Say what is not as it was when the object was fitted."""
        try:
            digest, _, _ = fingerprint(job.path, kind=job.field)
        except OSError as error:
            return f"its source {job.path}: {reason_of(error)}"
        if digest != np.asarray(self.column["hash"][row]).tobytes():
            return f"its source {job.path} has changed since it was fitted"
        seed = object_seed(job.id, job.config.seed)
        if seed != self.column["seed"][row]:
            was = int(self.column["seed"][row])
            return f"its row says seed {was}, its id and the settings say {seed}"
        if product_key(digest, job) != np.asarray(self.column["key"][row]).tobytes():
            return "the store's settings or init are not those that it was fitted by"
        return None

    def _values_apart(self, job: Job, theirs: Floats, ours: Floats) -> float:
        prepared = prepare(job)
        assert isinstance(prepared, Prepared)  # the fit has just done the same
        at = prepared.pool.coords[some_near(prepared.pool)]
        spec = NetworkSpec(**self.store.network)
        one, other = (FieldFunction(w, spec, job.field).values(at) for w in (theirs, ours))
        return float(np.abs(one - other).mean())

    def _colours_apart(self, row: int, theirs: Floats, ours: Floats, grid: Any) -> float:
        spec, samples = NetworkSpec(**self.store.network), self.config.samples
        (cameras,) = read_cameras(self.store, [row])
        held = np.flatnonzero(cameras.held if cameras.held.any() else ~cameras.held)
        parts = [picture_rays(cameras, int(at), PIXELS)[0] for at in held]
        rays = Rays(*(torch.cat([getattr(p, n) for p in parts]) for n in ("origins", "directions")))
        stored = RadianceField(theirs, spec, read_grids(self.store, [row])[0], samples)
        refit = RadianceField(ours, spec, grid, samples)
        one, other = (field.render(rays).colour for field in (stored, refit))
        return float((one - other).abs().mean())


def _fits(store: Store) -> list[dict[str, Any]]:
    """Give the runs that fitted a store, as far as they came to their end.

    Raises:
        StoreError: its fields were changed after their fits.
    """
    runs = store.runs()
    aligned = [run for run in runs if run["kind"] == ALIGNED]
    if aligned:
        origin = aligned[-1]["summary"].get("from", "STORE")
        raise StoreError(
            f"{store.path} holds fields that were aligned after their fits",
            hint=f"`nf2vec replay {origin} ID` refits what they were made of",
        )
    return [run for run in runs if run["kind"] == "fit"]


def _device(fits: list[dict[str, Any]]) -> str:
    """Name the kind of device that the last fits ran on."""
    return str(fits[-1]["versions"].get("device", "cpu")).partition(":")[0] if fits else "auto"


def _differences(fits: list[dict[str, Any]], here: dict[str, str]) -> str:
    """Tell which versions of the runs that fitted a store differ from those that run here."""
    if not fits:
        return "no run of `nf2vec fit` came to its end: what fitted it is not known"
    told = []
    for name, ours in here.items():
        theirs = {str(run["versions"].get(name, "unknown")) for run in fits}
        if theirs != {ours}:
            told.append(f"{name} {' or '.join(sorted(theirs))} there, {ours} here")
    return "; ".join(told)
