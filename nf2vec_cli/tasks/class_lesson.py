"""What a head for classes learns: which objects it can be told by, its training and its test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from nf2vec_cli.config.classify import ClassifyConfig
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.classifier import Classifier, stitchup
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.embedded import SPLITS, Labelled, labels_hint
from nf2vec_cli.tasks.heads import save_head, train_head
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.teacher import generator_of

TASK = "classify"


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


def train_classifier(
    store: Store,
    kept: Embeddings,
    key: str,
    known: Labelled,
    config: ClassifyConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    """Train a head on split train, choose its step on val, ask test once, and keep all that."""
    z = torch.from_numpy(kept.read(known.rows)).to(device)
    labels = torch.from_numpy(known.labels).to(device)
    places = {split: torch.from_numpy(known.of(split)).to(device) for split in SPLITS}
    torch.manual_seed(config.seed)
    module = new_head(kept.size, len(known.classes), config).to(device)
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


def new_head(size: int, classes: int, config: ClassifyConfig, *_: Any) -> Classifier:
    """Make a head for embeddings of so many numbers."""
    return Classifier(size, classes, widths=config.widths, dropout=config.dropout)


def usable(store: Store, known: Labelled, *, skip_rare: bool) -> Labelled:
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
