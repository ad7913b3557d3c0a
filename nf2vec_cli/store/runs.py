"""The runs that wrote to a store, each with its settings, versions and counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from warnings import catch_warnings, simplefilter

import zarr

from nf2vec_cli.store.durable import PARTIAL

STAMP = "%Y%m%dT%H%M%S%f"


def record(
    group: zarr.Group,
    kind: str,
    *,
    config: dict[str, Any],
    summary: dict[str, Any],
    versions: dict[str, str],
) -> str:
    """Keep a run as the attributes of a group of its own; its name sorts by time."""
    ended = datetime.now(UTC)
    runs = group.require_group("runs")
    name = f"{_after(max(names(runs), default=''), ended):{STAMP}}-{kind}-{uuid4().hex[:6]}"
    runs.create_group(
        name,
        attributes={
            "kind": kind,
            "ended": ended.isoformat(timespec="seconds"),
            "config": config,
            "summary": summary,
            "versions": versions,
        },
    )
    return name


def listed(group: zarr.Group) -> list[dict[str, Any]]:
    """Read all runs, the oldest first."""
    runs = group.get("runs")
    if not isinstance(runs, zarr.Group):
        return []
    return [{"run": name, **dict(runs[name].attrs)} for name in sorted(names(runs))]


def names(group: zarr.Group) -> list[str]:
    """List the groups in a group; what is being made or removed is none, and no news either."""
    with catch_warnings():
        simplefilter("ignore", zarr.errors.ZarrUserWarning)
        return [name for name in group.group_keys() if not name.endswith(PARTIAL)]


def _after(newest: str, now: datetime) -> datetime:
    """Give the time to name a run by: a clock that was put back leaves the order as it was."""
    stamp = newest.partition("-")[0]
    if stamp < f"{now:{STAMP}}":
        return now
    return datetime.strptime(stamp, STAMP) + timedelta(microseconds=1)
