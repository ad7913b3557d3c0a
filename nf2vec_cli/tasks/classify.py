"""Tell the class of objects from their embeddings: a head is trained where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from nf2vec_cli.config.classify import ClassifyConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.classifier import Classifier, stitchup
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Rows, Store, open_store
from nf2vec_cli.tasks.embedded import (
    SPLITS,
    Labelled,
    labelled,
    labels_hint,
    open_embeddings,
    splits_of,
)
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.fresh import embed_shapes
from nf2vec_cli.tasks.heads import has_head, head_key, open_head, save_head, train_head
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.teacher import generator_of

TASK = "classify"


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
    path: Path,
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
    known = _usable(store, everything, skip_rare=skip_rare)
    heads = []
    with progress or Silent() as teller:
        for seed in range(config.seed, config.seed + seeds):
            one = config.model_copy(update={"seed": seed})
            said = (known.labels.tolist(), known.splits.tolist(), known.classes)
            key = head_key(store, known.rows, kept.key, one.model_dump_json(), said=said)
            if force or not has_head(store, TASK, key):
                with store_lock(path, wait=wait):
                    _train(open_store(path, mode="a"), kept, key, known, one, target, teller)
                store = open_store(path)
            make = partial(_new_head, kept.size, len(known.classes), one)
            module, facts = open_head(store, TASK, key, make)
            heads.append(Head(key, module, known.classes, facts["metrics"]))
    return Classification(store, kept, heads, len(everything.rows) - len(known.rows))


def probabilities(module: Classifier, z: Tensor) -> NDArray[np.float64]:  # [N, E] -> [N, C]
    """Ask a head for the probability of each class."""
    with torch.inference_mode():
        found: NDArray[np.float64] = module.eval().cpu()(z).double().softmax(1).numpy()
    return found


def confusion_of(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:  # [C, C]
    """Count objects by true class (down) and predicted class (across)."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _train(
    store: Store,
    kept: Embeddings,
    key: str,
    known: Labelled,
    config: ClassifyConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    z = torch.from_numpy(kept.read(known.rows)).to(device)
    labels = torch.from_numpy(known.labels).to(device)
    places = {split: torch.from_numpy(known.of(split)).to(device) for split in SPLITS}
    torch.manual_seed(config.seed)
    module = _new_head(kept.size, len(known.classes), config).to(device)
    train = places["train"]
    if config.standardise:
        module.standardise(z[train])

    def loss(step: int) -> Tensor:
        generator = generator_of(config.seed, step)
        chosen = train[torch.randperm(len(train), generator=generator)[: config.batch].to(device)]
        x, y = z[chosen], labels[chosen]
        if config.stitchup:
            more, of_class = stitchup(x.cpu(), y.cpu(), generator=generator)
            x, y = torch.cat([x, more.to(device)]), torch.cat([y, of_class.to(device)])
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout
        return cross_entropy(module(x), y)

    def look() -> dict[str, float]:
        found = module(z[places["val"]])
        wanted = labels[places["val"]]
        wrong, unsure = (
            float((found.argmax(1) != wanted).sum()),
            float(cross_entropy(found, wanted)),
        )
        # val is small: of steps with as many mistakes the one with the least loss is best
        score = wrong + unsure / (1 + unsure)
        return {"score": score, "wrong": wrong / len(wanted), "loss": unsure}

    loop = Loop(module, config, loss_of=loss, look=look, by="score")
    train_head(store, TASK, key, loop, force=False, progress=progress)
    guessed = probabilities(module, z.cpu()).argmax(1)
    test, val = known.of("test"), known.of("val")
    confusion = confusion_of(known.labels[test], guessed[test], len(known.classes))
    asked = confusion.sum(1)
    right = np.diag(confusion)[asked > 0] / asked[asked > 0]
    metrics = {
        "accuracy": 100 * float(np.trace(confusion) / confusion.sum()),
        "class_accuracy": 100 * float(right.mean()),
        "val_accuracy": 100 * float((guessed[val] == known.labels[val]).mean()),
        "confusion": confusion.tolist(),
        **{f"{split}_objects": len(places[split]) for split in SPLITS},
    }
    save_head(
        store,
        TASK,
        key,
        loop,
        config=config,
        device=device,
        classes=list(known.classes),
        encoder=kept.key,
        init_hash=store.init_hash,
        metrics=metrics,
    )


def _new_head(size: int, classes: int, config: ClassifyConfig, *_: Any) -> Classifier:
    return Classifier(size, classes, widths=config.widths, dropout=config.dropout)


def _usable(store: Store, known: Labelled, *, skip_rare: bool) -> Labelled:
    """See that a head can be trained, its step chosen and its accuracy measured."""
    train = set(known.labels[known.of("train")].tolist())
    asked = set(known.labels[np.r_[known.of("val"), known.of("test")]].tolist())
    rare = [name for at, name in enumerate(known.classes) if at not in train & asked]
    if skip_rare and rare:
        known = known.without(rare)
        rare = []
    for split in SPLITS:
        if not len(known.of(split)):
            raise StoreError(
                f"{store.path} has no objects with a class in split {split}",
                hint=labels_hint(store, "splits"),
            )
    if rare:
        raise StoreError(
            f"{len(rare)} classes have no object in split train, or none in val and test: "
            f"{', '.join(rare[:5])}",
            hint=f"`nf2vec classify {store.path} --skip-rare` leaves them out",
        )
    if len(known.classes) < 2:
        raise StoreError(
            f"{store.path} has no two classes with objects in train and in val or test",
            hint=labels_hint(store, "classes and splits"),
        )
    return known
