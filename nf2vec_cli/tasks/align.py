"""Bring fields that did not start from a store's init to it, their functions unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.align import AlignConfig
from nf2vec_cli.core.mlp import coded, relu_forward, siren_forward
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.matching import chance, correlation, match_fields, moved, transformed, turned
from nf2vec_cli.models.network import NetworkSpec, split_theta
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.aligned_store import AlignedStore, already_there, check_free, check_unused
from nf2vec_cli.tasks.encoders import require_known_init
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

READ = 64  # fields in memory at once


@dataclass(frozen=True)
class Matched:
    """How a field was brought to the init.

    before, after: correlation of its hidden weights and biases with the init's. matrices: that of
    the hidden matrices alone, after, by which `encode` goes in an aligned store. moved: percent of
    its hidden neurons that changed places. turned: percent that changed a sign. change: largest
    difference of its outputs at random points, of outputs above 1 as their share. strange: whether
    `matrices` is no more than chance gives. problem: why it was left as it was, else empty.
    """

    id: str
    before: float
    after: float
    matrices: float
    moved: float
    turned: float
    change: float
    strange: bool
    problem: str = ""


@dataclass(frozen=True)
class AlignResult:
    """What `align` did. store: what was made, None where nothing was to be done or only shown.

    left: fields that were not below the gate, or not asked for. aligned: brought to the init.
    failed: left as they are, for the reason that their row tells. before, after, matrices: means of
    the aligned. chance: what `matrices` would be of random weights. strangers: fields that are no
    nearer than that, or were not asked for and are below the gate. written: False where the very
    store was there already, and then `objects` is empty.
    """

    store: str | None
    fields: int
    left: int
    aligned: int
    failed: int
    before: float | None
    after: float | None
    matrices: float | None
    chance: float | None
    strangers: int
    written: bool
    objects: tuple[Matched, ...]


@dataclass(frozen=True)
class _Job:
    id: str
    theta: Floats
    init: Floats
    spec: NetworkSpec
    config: AlignConfig
    chance: float


def align_store(
    path: Path,
    config: AlignConfig | None = None,
    *,
    out: Path | None = None,
    ids: Sequence[str] = (),
    everything: bool = False,
    jobs: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> AlignResult:
    """Match fields to the init by symmetries of their functions (paper, section VIII).

    The store itself stays as it is: a new one holds all its objects, with every bit of their
    weights (codec exact, since rounding would change a function), and its encoders and heads.

    Args:
        path: the store.
        config: settings; None: the defaults.
        out: the store to make; None: only say how well fields match.
        ids: take these fields, whatever they correlate with the init.
        everything: take all fields. Neither: those below `config.gate`.
        jobs: worker processes; 0 for one a core. They change no number.
        force: make `out` anew where another run of `align` made it.
        progress: told about each field that is matched.

    Raises:
        StoreError: there is no field, no such id, a network or init that is not known, or `out` is
            taken.
    """
    config = config or AlignConfig()
    store = open_store(path)
    require_known_init(store)
    spec = _network(store)
    done = store.rows(Status.DONE)
    if not len(done):
        raise StoreError(
            f"{path} holds no fitted field",
            hint=f"run `nf2vec fit SHAPES --field {store.field} --store {path}` first",
        )
    if out is not None:
        check_free(out, store)
    named = store.find(ids) if ids else done if everything else None
    if named is not None and not np.isin(named, done).all():
        raise StoreError(
            f"{ids[int(np.argmin(np.isin(named, done)))]!r} has no field in {path}",
            hint=f"`nf2vec info {path} --objects` lists what is fitted",
        )
    with progress or Silent() as teller:
        alike = _correlations(store, done, spec)
        # not above, so that a field that is not finite is looked at, and reported
        todo = done[~(alike >= config.gate)] if named is None else np.unique(named)
        product = _product(store, done, todo, config)
        told = None if force or out is None else already_there(out, product, store)
        if told is not None:
            return AlignResult(store=str(out), written=False, objects=(), **told)
        if out is not None and len(todo):
            check_unused(out, store)
        made = AlignedStore(store, out) if out is not None and len(todo) else None
        found = []
        luck = None
        if len(todo):
            luck = chance(torch.from_numpy(store.init), spec, seed=config.seed)
        for row, theta, matched in _matches(store, todo, spec, config, luck or 0, jobs, teller):
            if made:
                made.put(row, theta)
            found.append(matched)
        left = alike[~np.isin(done, todo)]
        far = int((~(left >= config.gate)).sum())
        result = _result(found, len(left), far, luck, None if made is None else out)
        if made:
            made.finish(config.model_dump(mode="json"), product, result)
    return result


def _result(
    found: Sequence[Matched], left: int, far: int, luck: float | None, out: Path | None
) -> AlignResult:
    """Sum up a run; `left` fields were not looked at, `far` of them below the gate."""
    good = [one for one in found if not one.problem]
    means = {
        name: float(np.mean([getattr(one, name) for one in good])) if good else None
        for name in ("before", "after", "matrices")
    }
    return AlignResult(
        store=None if out is None else str(out),
        fields=left + len(found),
        left=left,
        aligned=len(good),
        failed=len(found) - len(good),
        **means,
        chance=luck,
        strangers=far + sum(one.strange for one in found),
        written=out is not None,
        objects=tuple(found),
    )


def _network(store: Store) -> NetworkSpec:
    """Give the architecture, which must be one whose symmetries are known."""
    try:
        spec = NetworkSpec(**store.network)
    except TypeError as error:
        raise StoreError(f"{store.path} has a network that is not known: {error}") from error
    if spec.activation not in ("sine", "relu"):
        raise StoreError(
            f"{store.path} has {spec.activation!r} units: of sine and relu the symmetries are known"
        )
    if spec.parameters != len(store.init):
        raise StoreError(
            f"{store.path} is damaged: its network has {spec.parameters:,} parameters, its init "
            f"{len(store.init):,}"
        )
    return spec


def _correlations(store: Store, rows: Rows, spec: NetworkSpec) -> Floats:
    init = torch.from_numpy(store.init)
    found = [
        correlation(torch.from_numpy(store.weights(rows[at : at + READ])), init, spec).numpy()
        for at in range(0, len(rows), READ)
    ]
    return np.concatenate(found)


def _product(store: Store, done: Rows, todo: Rows, config: AlignConfig) -> str:
    """Name what a run makes: the fields that the store holds, those it takes, and its settings."""
    digest = sha256(f"{store.init_hash}/{config.model_dump_json()}".encode())
    for part in (done, todo, store.column("digest")[done]):
        digest.update(part.tobytes())
    return digest.hexdigest()


def _matches(
    store: Store,
    rows: Rows,
    spec: NetworkSpec,
    config: AlignConfig,
    luck: float,
    jobs: int,
    teller: Progress,
) -> Iterator[tuple[int, Floats | None, Matched]]:
    names = store.column("id")
    teller.start(len(rows), "align")
    work = (
        _Job(names[row], store.weights([row])[0], store.init, spec, config, config.chance * luck)
        for row in rows.tolist()
    )
    workers = max(1, min(jobs or available_cores(), len(rows)))
    for row, made in zip(rows.tolist(), spread(_match, work, workers=workers), strict=True):
        name = names[row]
        teller.advance(1, name)
        if isinstance(made, WorkerDied):
            yield row, None, _unmatched(name, "its worker died (out of memory?)")
        else:
            yield row, *made


def _match(job: _Job) -> tuple[Floats | None, Matched]:
    """Match one field; None where it is to stay as it is. Runs in a worker."""
    theta, init, spec = torch.from_numpy(job.theta), torch.from_numpy(job.init), job.spec
    if not theta.isfinite().all():
        return None, _unmatched(job.id, "its weights are not finite")
    found = match_fields(init, theta, spec, seed=job.config.seed)
    made = transformed(theta, found, spec)
    change = largest_change(theta, made, spec, points=job.config.points, seed=job.config.seed)
    if not change <= job.config.tolerance:
        problem = f"its outputs would change by {change:.2g}, over {job.config.tolerance:g}"
        return None, _unmatched(job.id, problem)
    before, after = correlation(torch.stack([theta, made]), init, spec).tolist()
    matrices = float(correlation(made[None], init, spec, biases=False))
    return made.numpy(), Matched(
        id=job.id,
        before=before,
        after=after,
        matrices=matrices,
        moved=100 * moved(found),
        turned=100 * turned(found),
        change=change,
        strange=not matrices >= job.chance,
    )


def _unmatched(name: str, problem: str) -> Matched:
    nan = float("nan")
    return Matched(name, nan, nan, nan, 0, 0, nan, True, problem)


def largest_change(a: Tensor, b: Tensor, spec: NetworkSpec, *, points: int, seed: int) -> float:
    """Compare the raw outputs of two fields, [P] each, at random points of [-1, 1]^3.

    In double precision, so that what is seen is a change of the weights and not of the order in
    which numbers are added up. A difference counts as a share of the largest output above 1.
    """
    generator = torch.Generator().manual_seed(seed)
    coords = torch.rand(1, points, 3, generator=generator) * 2 - 1
    one, other = (_outputs(theta, coords, spec) for theta in (a, b))
    return float((one - other).abs().max() / max(1.0, float(one.abs().max())))


def _outputs(theta: Tensor, coords: Tensor, spec: NetworkSpec) -> Tensor:
    weights, biases = split_theta(theta.double()[None], spec)
    if spec.activation == "sine":
        return siren_forward(weights, biases, coords.double(), spec.omega)
    return relu_forward(weights, biases, coded(coords, spec.octaves).double())
