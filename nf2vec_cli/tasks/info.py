"""Say what a store holds; reads columns only, never a field."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.store.damage import damage
from nf2vec_cli.store.schema import COLUMNS, Status
from nf2vec_cli.store.store import UNKNOWN_INIT, Store, open_store
from nf2vec_cli.tasks.learnt import EncoderRow, HeadRow, encoder_rows, head_rows


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance.

    fit_error: mean distances in unit space, near the surface; of radiance, mean differences of
    colours, in [0, 1], on the views held out. psnr: there, in decibels (nerf).
    """

    store: str
    field: str
    objects: int
    status: dict[str, int]
    open_surfaces: int
    network: str
    init: str
    codec: str
    bytes: int
    bytes_per_object: float | None
    recipe: str
    fit_error: dict[str, float]
    psnr: dict[str, float]
    fit_seconds: dict[str, float]
    format_version: int
    runs: int
    last_run: str | None
    classes: list[dict[str, Any]]
    encoders: tuple[EncoderRow, ...]
    heads: tuple[HeadRow, ...]


def store_info(path: Path) -> StoreInfo:
    """Sum up a store."""
    store = open_store(path)
    with damage(path, "what it says of itself"):
        return _info(path, store)


def _info(path: Path, store: Store) -> StoreInfo:
    slots = store.column("status")
    rows = np.flatnonzero(slots != Status.EMPTY)
    status = slots[rows]
    done = rows[status == Status.DONE]
    size = sum(store.storage().values())
    runs = store.runs()
    network = store.network
    codec = store.codec if store.codec == "exact" else f"{store.codec}, {store.bits} bits"
    return StoreInfo(
        store=str(path),
        field=store.field,
        objects=len(rows),
        status={s.name.lower(): int((status == s).sum()) for s in Status if (status == s).any()},
        open_surfaces=int((store.column("watertight")[done] == 0).sum()),
        network=f"{_network(network)}, {len(store.init):,} parameters",
        init="unknown" if store.imported.get("init") == UNKNOWN_INIT else store.init_hash,
        codec=codec,
        bytes=size,
        bytes_per_object=size / len(done) if len(done) else None,
        recipe=_recipe(store),
        fit_error=_spread_of(_known(store.column("error")[done])),
        psnr=_worst_low(store.column("psnr")[done]) if store.field == "nerf" else {},
        fit_seconds=_spread_of(store.column("seconds")[done]),
        format_version=store.format_version,
        runs=len(runs),
        last_run=runs[-1]["ended"] if runs else None,
        classes=_classes(store, slots != Status.EMPTY),
        encoders=encoder_rows(store),
        heads=head_rows(store),
    )


def _network(network: dict[str, Any]) -> str:
    sizes = f"{network['inputs']}-{network['hidden']}x{network['layers']}-{network['outputs']}"
    if network.get("activation", "sine") == "sine":
        return f"SIREN {sizes}, omega {network['omega']:g}"
    octaves = network.get("octaves", 0)
    if not octaves:
        return f"ReLU {sizes}"
    return f"ReLU {sizes}, {octaves} octaves, {'' if network['biases'] else 'no '}biases"


def _recipe(store: Store) -> str:
    """Say how the fields were made."""
    if store.imported:
        return f"imported, layout {store.imported['layout']}, init {store.imported['init']}"
    config = store.config
    return (
        f"{config['recipe']}: {config['steps']} steps x {_step(store)}, {config['optimiser']}, "
        f"seed {config['seed']}"
    )


def _step(store: Store) -> str:
    """Say what a step of a fit looks at."""
    if store.field == "nerf":
        return f"{store.config['step_samples']} samples on rays"
    return f"{store.config['points']} points"


def object_rows(
    path: Path, *, failed: bool = False, open_surfaces: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a record for each object: all, the failed ones, or the fitted open surfaces."""
    store = open_store(path)
    rows = store.rows()
    names = ("id", "class", "split", "status", "watertight", "error", "sign", "doubt", "seconds")
    more = ("psnr", "faces", "source", "message")
    column = {name: store.column(name) for name in (*names, *more)}
    for row in rows:
        with damage(path, "column 'status'"):
            status = Status(int(column["status"][row]))
        if failed and status not in (Status.FAILED, Status.QUARANTINED):
            continue
        if open_surfaces and not (status is Status.DONE and column["watertight"][row] == 0):
            continue
        record: dict[str, Any] = {
            "id": column["id"][row],
            "class": column["class"][row],
            "split": column["split"][row],
            "status": status.name.lower(),
        }
        if status is Status.DONE:
            told = ("error", "psnr" if store.field == "nerf" else "doubt", "seconds")
            record |= {k: float(column[k][row]) for k in told}
            record |= {"sign": column["sign"][row]} if store.field == "sdf" else {}
        if not failed and store.field != "nerf":
            record["watertight"] = {0: False, 1: True}.get(int(column["watertight"][row]))
            record["faces"] = int(column["faces"][row])
        yield record | {"source": column["source"][row], "message": column["message"][row]}


@dataclass(frozen=True)
class StorageInfo:
    """Bytes on disk of each array, and what each codec costs: measured when objects were fitted."""

    store: str
    objects: int
    bytes: int
    arrays: list[dict[str, Any]]
    codecs: list[dict[str, Any]]


def storage_info(path: Path) -> StorageInfo:
    """Break down a store's bytes, and tell the bytes and field error of each codec."""
    store = open_store(path)
    sizes = store.storage()
    done = len(store.rows(Status.DONE))
    with damage(path, "its record of runs"):
        codecs = _codecs(store)
    return StorageInfo(
        store=str(path),
        objects=done,
        bytes=sum(sizes.values()),
        arrays=[
            {"array": name, "bytes": size, "per_object": size / max(done, 1)}
            for name, size in sorted(sizes.items(), key=lambda item: -item[1])
        ],
        codecs=codecs,
    )


def _codecs(store: Store) -> list[dict[str, Any]]:
    """Average the runs' measurements, by how many objects each measured."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in store.runs():
        for name, figures in run.get("summary", {}).get("codecs", {}).items():
            found[name].append(figures)
    table: list[dict[str, Any]] = []
    for name, figures in found.items():
        objects = sum(f["objects"] for f in figures)
        size, error = (
            sum(f[key] * f["objects"] for f in figures) / objects for key in ("bytes", "error")
        )
        table.append({"codec": name, "bytes_per_object": size, "error": error, "objects": objects})
    exact = next((row["error"] for row in table if row["codec"] == "exact"), None)
    for row in table:
        row["error_change"] = f"{row['error'] / exact - 1:+.2%}" if exact else None
    return table


def _spread_of(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    middle, high, worst = np.percentile(values, [50, 95, 100])
    return {"median": float(middle), "p95": float(high), "worst": float(worst)}


def _known(values: Any) -> Any:
    """Leave out what is not known, of fields from elsewhere."""
    return values[np.isfinite(values)]


def _worst_low(values: Any) -> dict[str, float]:
    """Sum up what is better the larger it is; what is not known is left out."""
    known = _known(values)
    if not len(known):
        return {}
    middle, low, worst = np.percentile(known, [50, 5, 0])
    return {"median": float(middle), "p5": float(low), "worst": float(worst)}


def _classes(store: Store, there: NDArray[np.bool_]) -> list[dict[str, Any]]:
    found: Counter[bytes] = Counter()
    for start, (class_names, splits) in store.sections("class", "split"):
        # counted as bytes: to decode a million names and pair them takes longer than all the rest
        mine = there[start : start + len(splits)]  # not of what another run adds meanwhile
        both = np.concatenate([splits, class_names], axis=1)[: len(mine)][mine]
        found.update(both.view(f"S{both.shape[1]}")[:, 0].tolist())
    width = COLUMNS["split"].width
    labels = [
        [part.rstrip(b"\0").decode("utf-8", "replace") for part in (text[width:], text[:width])]
        for text in found
    ]
    counts = Counter[tuple[str, str]]()
    for text, (name, split) in zip(found, labels, strict=True):
        counts[name, split] += found[text]
    columns = sorted({split for _, split in counts}, key=_split_order)
    return [
        {"class": name or "(none)"}
        | {split or "no split": counts[name, split] for split in columns}
        for name in sorted({name for name, _ in counts})
    ]


def _split_order(split: str) -> tuple[int, str]:
    known = ("train", "val", "test")
    return (known.index(split) if split in known else len(known), split)
