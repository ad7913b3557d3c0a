"""What a store has learnt: its encoders and heads, as their attributes tell; no array of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.products import ENCODERS, HEADS, Embeddings, keys
from nf2vec_cli.store.store import Store

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class EncoderRow:
    """An encoder. embedded: objects that it has embedded; stale: those whose field is another now.

    What its facts do not tell is None.
    """

    key: str
    arch: str | None
    field: str | None
    embedded: int
    stale: int
    ended: str | None


@dataclass(frozen=True)
class HeadRow:
    """What a task has trained on embeddings. about: what it tells or makes; value: of `metric`."""

    task: str
    key: str
    encoder: str | None
    about: str | None
    metric: str | None
    value: float | None
    ended: str | None


def encoder_rows(store: Store) -> tuple[EncoderRow, ...]:
    """List the encoders of a store, the oldest first."""
    rows = []
    for key in keys(store, ENCODERS):
        facts: Any = store.group[f"{ENCODERS}/{key}"].attrs.asdict()
        arch, field = facts.get("config", {}).get("encoder_arch"), facts.get("field")
        try:
            embedded, stale = map(len, Embeddings(store, key).compared())
        except StoreError:  # it has embedded nothing
            embedded = stale = 0
        rows.append(EncoderRow(key, arch, field, embedded, stale, facts.get("ended")))
    return tuple(rows)


def head_rows(store: Store) -> tuple[HeadRow, ...]:
    """List the heads of a store by task, the oldest first."""
    folder = store.path / HEADS
    tasks = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return tuple(
        _head_row(task, key, store.group[f"{HEADS}/{task}/{key}"].attrs.asdict())
        for task in tasks
        for key in keys(store, f"{HEADS}/{task}")
    )


def _head_row(task: str, key: str, facts: Facts) -> HeadRow:
    encoder, ended = facts.get("encoder"), facts.get("ended")
    try:
        about, metric, value = TOLD[task](facts)
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version than this
        return HeadRow(task, key, encoder, None, None, None, ended)
    return HeadRow(task, key, encoder, about, metric, value, ended)


def _of_classify(facts: Facts) -> tuple[str, str, float]:
    return f"{len(facts['classes'])} classes", "accuracy", facts["metrics"]["accuracy"]


def _of_segment(facts: Facts) -> tuple[str, str, float]:
    return f"{len(facts['parts'])} parts", "class_miou", facts["result"]["class_miou"]


def _of_generate(facts: Facts) -> tuple[str, str, float]:
    # without val objects the step was chosen on those of train
    metric = "val_error" if facts["val_objects"] else "train_error"
    return facts["class_name"], metric, min(look["error"] for look in facts["curve"]["looks"])


def _of_map(facts: Facts) -> tuple[str, str, float]:
    return facts["target"], "test_error", facts["result"]["test_error"]


TOLD: dict[str, Callable[[Facts], tuple[str, str, float]]] = {
    "classify": _of_classify,
    "segment": _of_segment,
    "generate": _of_generate,
    "map": _of_map,
}
