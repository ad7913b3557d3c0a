"""Tell the class of objects from their embeddings: a head is trained where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.classify import ClassifyConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.models.classifier import Classifier
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.class_lesson import (
    TASK,
    new_head,
    probabilities,
    train_classifier,
    usable,
)
from nf2vec_cli.tasks.embedded import (
    SPLITS,
    labelled,
    open_embeddings,
    splits_of,
)
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.fresh import embed_shapes
from nf2vec_cli.tasks.heads import has_head, head_key, open_head


@dataclass(frozen=True)
class Head:
    """A classifier with its classes and what was measured of it."""

    key: str
    module: Classifier
    classes: tuple[str, ...]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Classified:
    """What split test says of the heads of several seeds; all in percent.

    accuracy: of objects. class_accuracy: mean over the classes that are in test. spread: standard
    deviation of the accuracy over the seeds. confusion: of the first seed, true classes down.
    """

    heads: tuple[str, ...]
    encoder: str
    train_objects: int
    val_objects: int
    test_objects: int
    val_accuracy: float
    accuracy: float
    class_accuracy: float
    spread: float | None
    left_out: int
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Prediction:
    """An object's class as a head sees it. `truth` and `split`: empty for a new shape."""

    id: str
    predicted: str
    probability: float
    second: str
    truth: str
    split: str
    probabilities: dict[str, float]


class Classification:
    """The heads of a store, ready to be asked. Made by `classify_store`."""

    def __init__(self, store: Store, kept: Embeddings, heads: Sequence[Head], left: int) -> None:
        self.store, self.kept, self.heads, self.left = store, kept, heads, left

    @property
    def result(self) -> Classified:
        """Tell what was measured when the heads were trained."""
        all_metrics = [head.metrics for head in self.heads]
        first = all_metrics[0]
        accuracies = [metrics["accuracy"] for metrics in all_metrics]
        return Classified(
            heads=tuple(head.key for head in self.heads),
            encoder=self.kept.key,
            **{f"{split}_objects": first[f"{split}_objects"] for split in SPLITS},
            val_accuracy=mean(metrics["val_accuracy"] for metrics in all_metrics),
            accuracy=mean(accuracies),
            class_accuracy=mean(metrics["class_accuracy"] for metrics in all_metrics),
            spread=stdev(accuracies) if len(accuracies) > 1 else None,
            left_out=self.left,
            classes=self.heads[0].classes,
            confusion=tuple(map(tuple, first["confusion"])),
        )

    def summary(self) -> dict[str, Any]:
        """Tell the result without its matrix."""
        hidden = ("classes", "confusion")
        result = vars(self.result)
        return {name: value for name, value in result.items() if name not in hidden}

    def by_class(self) -> list[dict[str, Any]]:
        """Tell each class's share of right answers in test, and what it is taken for most."""
        rows = []
        for at, (name, counts) in enumerate(
            zip(self.result.classes, self.result.confusion, strict=True)
        ):
            wrong = [0 if other == at else count for other, count in enumerate(counts)]
            taken = int(np.argmax(wrong))
            rows.append(
                {
                    "class": name,
                    "test": sum(counts),
                    "right": counts[at],
                    "percent": 100 * counts[at] / sum(counts) if sum(counts) else None,
                    "taken for": self.result.classes[taken] if wrong[taken] else None,
                }
            )
        return rows

    def asked(self) -> Rows:
        """List the objects of test."""
        known = labelled(self.store, self.kept.current())
        rows = known.rows[known.of("test")]
        names = self.store.column("class")
        return np.array([row for row in rows if names[row] in self.heads[0].classes], np.int64)

    def unlabelled(self) -> Rows:
        """List the objects without a class."""
        names = self.store.column("class")
        return np.array([row for row in self.kept.current() if not names[row]], np.int64)

    def of_rows(self, rows: Rows) -> Iterator[Prediction]:
        """Classify objects of the store by the first head."""
        ids, classes, splits = (
            *(self.store.column(n) for n in ("id", "class")),
            splits_of(self.store),
        )
        facts = [(ids[row], classes[row], str(splits[row])) for row in rows]
        yield from self._told(facts, torch.from_numpy(self.kept.read(rows)))

    def of_shapes(
        self, refs: Sequence[ShapeRef], *, device: str, jobs: int, progress: Progress
    ) -> tuple[list[Prediction], tuple[tuple[str, str], ...]]:
        """Fit, embed and classify shapes that are in no store; what failed comes with reasons."""
        trained = open_encoder(self.store, self.kept.key)
        with progress:
            fresh = embed_shapes(
                self.store, refs, trained, device=device, jobs=jobs, progress=progress
            )
        facts = [(ref.id, "", "") for ref in fresh.refs]
        return list(self._told(facts, torch.from_numpy(fresh.z))), fresh.failed

    def _told(self, facts: Sequence[tuple[str, str, str]], z: Tensor) -> Iterator[Prediction]:
        head = self.heads[0]
        shares = probabilities(head.module, z)
        for (name, truth, split), share in zip(facts, shares, strict=True):
            best, second = np.argsort(-share)[:2]
            yield Prediction(
                id=name,
                predicted=head.classes[best],
                probability=float(share[best]),
                second=head.classes[second],
                truth=truth,
                split=split,
                probabilities=dict(zip(head.classes, share.tolist(), strict=True)),
            )


def classify_store(
    path: Place,
    config: ClassifyConfig,
    *,
    encoder: str | None = None,
    seeds: int = 1,
    skip_rare: bool = False,
    device: str = "auto",
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Classification:
    """Open the heads for a store's embeddings and labels; those that are not there are trained.

    A head is trained on split train, its best weights are chosen on val, and test is asked once.

    Args:
        path: the store.
        config: settings.
        encoder: key of the encoder whose embeddings to read; None: the newest.
        seeds: heads, from `config.seed` on.
        skip_rare: leave out classes that have no object in train, or none in val and test.
        device: "cpu", "cuda", "cuda:N" or "auto".
        force: train again what is there.
        wait: seconds to wait for another run's lock.
        progress: told about each step.

    Raises:
        StoreError: there are no embeddings, too few labels, or an empty split.
        LockedError: another run is writing.
    """
    target = open_device(device)
    store = open_store(path)
    kept = open_embeddings(store, encoder)
    everything = labelled(store, kept.current())
    known = usable(store, everything, skip_rare=skip_rare)
    heads = []
    with progress or Silent() as teller:
        for seed in range(config.seed, config.seed + seeds):
            one = config.model_copy(update={"seed": seed})
            said = (known.labels.tolist(), known.splits.tolist(), known.classes)
            key = head_key(store, known.rows, kept.key, one.model_dump_json(), said=said)
            if force or not has_head(store, TASK, key):
                with store_lock(path, wait=wait):
                    train_classifier(
                        open_store(path, mode="a"), kept, key, known, one, target, teller
                    )
                store = open_store(path)
            make = partial(new_head, kept.size, len(known.classes), one)
            module, facts = open_head(store, TASK, key, make)
            heads.append(Head(key, module, known.classes, facts["metrics"]))
    return Classification(store, kept, heads, len(everything.rows) - len(known.rows))
