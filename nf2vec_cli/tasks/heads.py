"""Heads: what tasks train on embeddings, each kept in the store under its task and key."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
from torch import nn

from nf2vec_cli.config.strict import StrictModel
from nf2vec_cli.store.products import HEADS, keys, load_state, save_state
from nf2vec_cli.store.store import Rows, Store
from nf2vec_cli.tasks.loop import State, arrays_of


def head_key(store: Store, encoder: str, config: StrictModel, rows: Rows, *labels: Any) -> str:
    """Name a head: encoder, settings, the fields it learns from, and what is said of them."""
    digest = sha256(f"{encoder}/{config.model_dump_json()}".encode())
    digest.update(np.asarray(store.column("digest"))[rows].tobytes())
    for part in labels:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def saved_head(store: Store, task: str, key: str) -> tuple[State, dict[str, Any]] | None:
    """Read a head of a store: its arrays and facts; None if it is not there.

    Raises:
        StoreError: it is damaged.
    """
    place = f"{HEADS}/{task}"
    return load_state(store, place, key) if key in keys(store, place) else None


def save_head(store: Store, task: str, key: str, module: nn.Module, **facts: Any) -> None:
    """Keep a head with its settings, metrics and versions."""
    store.group.require_group(HEADS)
    ended = datetime.now(UTC).isoformat()
    save_state(store, f"{HEADS}/{task}", key, arrays_of(module), ended=ended, **facts)
