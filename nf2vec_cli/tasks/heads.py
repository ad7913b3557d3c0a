"""Heads: what tasks train on embeddings, each kept in the store under its task and key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from nf2vec_cli.config.strict import StrictModel
from nf2vec_cli.errors import StoreError
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.products import (
    CHECKPOINTS,
    HEADS,
    keys,
    load_state,
    newest_checkpoint,
    remade_by,
    remove_checkpoints,
    save_checkpoint,
    save_state,
)
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.loop import Loop, arrays_of

Head = TypeVar("Head", bound=nn.Module)


def head_key(store: Store, rows: Rows, *named: str, said: Iterable[Any] = ()) -> str:
    """Name a head: encoder, settings..., the fields it learns from, and what is said of them."""
    digest = sha256("/".join(named).encode())
    digest.update(np.asarray(store.column("digest"))[rows].tobytes())
    for part in said:
        digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def has_head(store: Store, task: str, key: str) -> bool:
    """Tell whether a store holds a head, whole."""
    return key in keys(store, f"{HEADS}/{task}")


def open_head(
    store: Store, task: str, key: str, make: Callable[[Mapping[str, Any]], Head]
) -> tuple[Head, dict[str, Any]]:
    """Read a head: the module that `make` builds by the facts, with its numbers, and the facts.

    Raises:
        StoreError: it is not there, or damaged.
    """
    place = f"{HEADS}/{task}"
    arrays, facts = load_state(store, place, key)
    try:
        module = make(facts)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{store.path} is damaged: {place}/{key} is not what its settings say: {reason}",
            hint=remade_by(store, place),
        ) from error
    return module.eval(), facts


def train_head(
    store: Store, task: str, key: str, loop: Loop, *, force: bool, progress: Progress
) -> None:
    """Run a loop to its end; it goes on from where a run was killed, unless `force`.

    Raises:
        Nf2vecError: the loss is not finite any more.
        StoreError: the checkpoint is damaged.
    """
    name = _run_name(task, key)
    if force:
        remove_checkpoints(store, name)
    if (known := newest_checkpoint(store, name)) is not None:
        loop.restore(*load_state(store, CHECKPOINTS, known, owner=f"{HEADS}/{task}"))
    loop.run(
        checkpoint=lambda arrays, facts: save_checkpoint(store, name, arrays, **facts),
        progress=progress,
    )


def save_head(
    store: Store,
    task: str,
    key: str,
    loop: Loop,
    *,
    config: StrictModel,
    device: torch.device,
    **facts: Any,
) -> None:
    """Keep what a loop has trained, with its settings, curve and versions; its run is over."""
    store.group.require_group(HEADS)
    save_state(
        store,
        f"{HEADS}/{task}",
        key,
        arrays_of(loop.module),
        config=config.model_dump(mode="json"),
        curve=vars(loop.curve),
        versions=versions(device),
        ended=datetime.now(UTC).isoformat(),
        **facts,
    )
    remove_checkpoints(store, _run_name(task, key))


def _run_name(task: str, key: str) -> str:
    """Name a run's checkpoints; those of parts have had their task in front since there are any."""
    return f"segment-{key}" if task == "segment" else key
