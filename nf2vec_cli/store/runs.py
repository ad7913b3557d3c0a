"""The runs that wrote to a store, each with its settings, versions and counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import zarr


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
    name = f"{ended:%Y%m%dT%H%M%S%f}-{kind}-{uuid4().hex[:6]}"
    group.require_group("runs").create_group(
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
    return [{"run": name, **dict(runs[name].attrs)} for name in sorted(runs.group_keys())]
