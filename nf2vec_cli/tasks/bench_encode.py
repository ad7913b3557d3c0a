"""Measure what embedding a field costs: the authors' module as they run it, and ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from nf2vec_cli.config import Preset
from nf2vec_cli.config.train import TrainConfig, train_defaults
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.encoder import AlignedEncoder
from nf2vec_cli.models.network import NetworkSpec, weight_rows
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.encode_shard import embedder
from nf2vec_cli.tasks.spread import one_thread

CPU = torch.device("cpu")
REPEATS = 5
WIDE = 512  # hidden units from which fields count as the paper's


@dataclass(frozen=True)
class EncodeBench:
    """One encoder on the fields of a store; milliseconds an object, medians, one thread.

    authors_ms: their module (Conv1d and BatchNorm, an object at a time), its rows at hand.
    ours_ms: a batch of fields as `encode` embeds it. times: how much cheaper. read_ms: reading and
    decoding the weights. read_share: percent of reading and embedding together; `encode` reads
    the next batch while one is embedded.
    """

    encoder: str
    parameters: int
    numbers: int
    batch: int
    authors_ms: float
    ours_ms: float
    times: float
    read_ms: float
    read_share: float


def bench_encode(
    path: Path, *, objects: int | None = None, overrides: dict[str, Any] | None = None
) -> Iterator[EncodeBench]:
    """Embed a store's fields by untrained encoders of the sizes that their width has by default.

    Args:
        path: the store; wide fields are embedded at the paper's sizes, others at those of `small`.
        objects: fields in a batch; None: those of a shard, as `encode` takes them. Fields are
            repeated where the store has fewer.
        overrides: settings of training that differ from the preset's.

    Raises:
        StoreError: nothing is fitted.
    """
    store = open_store(path)
    done = store.rows(Status.DONE)
    if not len(done):
        raise StoreError(
            f"{path} holds no fitted field",
            hint=f"run `nf2vec fit SHAPES --field {store.field} --store {path}` first",
        )
    spec = NetworkSpec(**store.network)
    preset = Preset.paper if spec.hidden >= WIDE else Preset.small
    settings = train_defaults(preset, store.field) | (overrides or {})
    batch = objects or store.batch
    rows = done[torch.arange(batch).numpy() % len(done)]
    with one_thread(), torch.inference_mode():
        read = _seconds(lambda: store.weights(rows)) / batch
        theta = torch.from_numpy(store.weights(rows))
        torch.manual_seed(0)
        modules = [
            AutoEncoder(spec, TrainConfig(**(settings | {"encoder_arch": arch}))).eval()
            for arch in ("paper", "aligned")
        ]
        if isinstance(aligned := modules[1].encoder, AlignedEncoder):
            aligned.fit_projection(theta, torch.from_numpy(store.init))
        config = TrainConfig(**settings)
        theirs = AuthorsEncoder(spec.hidden, config.widths, config.embedding).eval()
        each = [weight_rows(one[None], spec) for one in theta]
        for arch, module in zip(("paper", "aligned"), modules, strict=True):
            embed = partial(embedder(module, CPU), theta)
            # in turn, so that what else the machine does falls on both
            pairs = [
                (_once(lambda: [theirs(one) for one in each]), _once(embed)) for _ in range(REPEATS)
            ]
            authors, ours = (median(found) / batch for found in zip(*pairs, strict=True))
            yield EncodeBench(
                encoder=arch,
                parameters=spec.parameters,
                numbers=config.embedding,
                batch=batch,
                authors_ms=1e3 * authors,
                ours_ms=1e3 * ours,
                times=authors / ours,
                read_ms=1e3 * read,
                read_share=100 * read / (read + ours),
            )


class AuthorsEncoder(nn.Module):
    """The authors' encoder as they wrote it: convolutions of width 1 over the rows."""

    def __init__(self, into: int, widths: Sequence[int], embedding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((into, *widths)):
            layers += [nn.Conv1d(before, after, 1), nn.BatchNorm1d(after), nn.ReLU()]
        self.rows = nn.Sequential(*layers, nn.Conv1d(widths[-1], embedding, 1))

    def forward(self, rows: Tensor) -> Tensor:  # [B, R, H] -> [B, E]
        """Embed fields from their rows."""
        found: Tensor = self.rows(rows.transpose(1, 2)).amax(2)
        return found


def _once(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _seconds(work: Callable[[], Any]) -> float:
    return median(_once(work) for _ in range(REPEATS))
