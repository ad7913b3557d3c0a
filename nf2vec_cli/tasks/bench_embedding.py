"""Measure what embeddings tell of an object's class, beside principal components of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.projection import principal_directions
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import EMBEDDINGS, ENCODERS, Embeddings, keys
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import labelled
from nf2vec_cli.tasks.encoders import open_encoder

FOLDS = 4
PENALTIES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of the mean loss, on half the square
COMPONENTS = (64, 128, 256)
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class EmbeddingBench:
    """What features tell of the class. All in percent, of objects in splits val and test.

    logistic: classified rightly by logistic regression on split train, whose penalty is chosen
    by fourfold cross-validation there. nearest: class of the nearest train object by cosine.
    hit_at_1: class of the nearest other object of val and test. objects: how many are asked.
    """

    features: str
    numbers: int
    train: int
    objects: int
    logistic: float
    nearest: float
    hit_at_1: float


def bench_embeddings(path: Place, *, encoders: Sequence[str] = ()) -> Iterator[EmbeddingBench]:
    """Measure encoders' embeddings, and principal components of the difference from the init.

    Augmented copies are left out. The components' directions come from split train alone.

    Args:
        path: the store.
        encoders: keys of encoders; empty: all that have embedded this store.

    Raises:
        StoreError: there are no embeddings, or no two classes in split train and none to ask.
    """
    store = open_store(path)
    known = [key for key in keys(store, ENCODERS) if f"{EMBEDDINGS}/{key}" in store.group]
    found = labelled(store, store.rows(Status.DONE))
    single = ~found.is_copy
    rows, labels = found.rows[single], found.labels[single]
    is_train = found.splits[single] == "train"
    if len(set(labels[is_train])) < 2 or is_train.all():
        raise StoreError(
            f"{store.path} has no two classes in split train and objects in another split to ask",
            hint="`nf2vec fit SHAPES --labels labels.csv` gives objects their classes and splits",
        )
    theta = store.weights(rows)
    sound = np.isfinite(theta).all(1)
    rows, labels, is_train = rows[sound], labels[sound], is_train[sound]
    difference = torch.from_numpy(theta[sound] - store.init)
    centre = difference[is_train].mean(0)
    for count in COMPONENTS:
        if count < is_train.sum():
            directions = principal_directions(difference[is_train] - centre, count)
            scores = (difference - centre) @ (directions / directions.norm(dim=1, keepdim=True)).T
            whitened = scores / scores[is_train].std(0)
            yield measure(f"PCA of the weights, {count}", whitened, labels, is_train)
    for key in encoders or known:
        kept = Embeddings(store, key)
        missing = np.setdiff1d(rows, kept.current())
        if len(missing):
            raise StoreError(
                f"{len(missing)} objects have no embedding by encoder {key!r}",
                hint=f"run `nf2vec encode {path} --encoder {key}` first",
            )
        arch = open_encoder(store, key).facts["config"]["encoder_arch"]
        z = torch.from_numpy(kept.read(rows))
        yield measure(f"{arch} encoder {key}", z, labels, is_train)


def measure(
    name: str, features: Tensor, labels: Labels, is_train: NDArray[np.bool_]
) -> EmbeddingBench:
    """Measure features [N, F] of objects with classes [N]."""
    features = features.float()
    y = torch.from_numpy(labels)
    train, asked = features[is_train], features[~is_train]
    y_train, y_asked = y[is_train], y[~is_train]
    centre = train.mean(0)
    scale = (train - centre).square().mean().sqrt().clamp_min(1e-12)
    guessed = classify((train - centre) / scale, y_train, (asked - centre) / scale)
    here, there = normalize(asked, dim=1), normalize(train, dim=1)
    others = here @ here.T
    others.fill_diagonal_(-torch.inf)

    def percent(found: Tensor) -> float:
        return 100 * float((found == y_asked).double().mean())

    return EmbeddingBench(
        features=name,
        numbers=features.shape[1],
        train=len(train),
        objects=len(asked),
        logistic=percent(guessed),
        nearest=percent(y_train[(here @ there.T).argmax(1)]),
        hit_at_1=percent(y_asked[others.argmax(1)]),
    )


def classify(train: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Guess the classes of `asked` by logistic regression on `train`; its penalty by folds."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    folds = order.chunk(FOLDS)
    classes = int(labels.max()) + 1
    scores = []
    for penalty in PENALTIES:
        right = 0
        for fold in folds:
            rest = torch.ones(len(train), dtype=torch.bool)
            rest[fold] = False
            fitted = _regress(train[rest], labels[rest], classes, penalty)
            right += int((_scores(fitted, train[fold]).argmax(1) == labels[fold]).sum())
        scores.append(right)
    best = PENALTIES[int(np.argmax(scores))]
    return _scores(_regress(train, labels, classes, best), asked).argmax(1)


def _regress(x: Tensor, y: Tensor, classes: int, penalty: float) -> Tensor:  # -> [F + 1, C]
    weights = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        found = cross_entropy(_scores(weights, x), y) + penalty / 2 * weights[:-1].square().sum()
        found.backward()
        return found

    solver.step(loss)
    return weights.detach()


def _scores(weights: Tensor, x: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]
