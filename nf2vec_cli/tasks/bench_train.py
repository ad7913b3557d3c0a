"""Measure steps of training: the decoder's embedding part once an object or once a point."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.core.ranks import Ranks
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.memory import peak_memory
from nf2vec_cli.tasks.study import Study
from nf2vec_cli.tasks.train import training_rows

VARIANTS = tuple((joined, p) for p in ("float32", "bfloat16") for joined in (False, True))
WARM_UP = 2  # steps that are not timed


@dataclass(frozen=True)
class TrainBench:
    """One way to train. memory_mb: what steps add to the memory of the process at its peak.

    decoder: "factored" computes what the embedding adds once an object; "joined" at each point.
    """

    encoder: str
    decoder: str
    precision: str
    batch: int
    points: int
    steps_per_second: float
    memory_mb: float


def bench_train(
    path: Place,
    config: TrainConfig,
    *,
    steps: int = 20,
    device: str = "auto",
    progress: Progress | None = None,
) -> Iterator[TrainBench]:
    """Train a few steps on a store's fields, in each way in a process of its own; nothing is kept.

    Args:
        path: the store.
        config: settings of training.
        steps: steps that are timed, after two that are not.
        device: "cpu", "cuda", "cuda:N" or "auto".
        progress: told about each way.

    Raises:
        StoreError: there are too few fields.
    """
    store = open_store(path)
    with progress or Silent() as teller:
        training_rows(store, store.rows(Status.DONE), config)
        teller.start(len(VARIANTS), "train")
        for joined, precision in VARIANTS:
            changed = config.model_copy(
                update={"precision": precision, "steps": steps + WARM_UP + 1, "supervise": "field"}
            )
            # a process of its own: memory that another way has freed is not used again
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                yield pool.submit(_measure, path, changed, joined, device).result()
            teller.advance(1, precision)


def _measure(path: Place, config: TrainConfig, joined: bool, device: str) -> TrainBench:
    target = open_device(device)
    store = open_store(path)
    silent = Silent()
    fields = HeldFields(store, store.rows(Status.DONE), progress=silent)
    parts = training_rows(store, fields.rows, config)
    study = Study(store, fields, parts, config, Ranks(target))
    if joined:
        study.module.decoder = JoinedDecoder.like(study.module.decoder).to(target)
    study.project(silent)
    study.read()
    began: list[float] = []

    def loss(step: int) -> Tensor:
        if target.type == "cuda":
            torch.cuda.synchronize(target)
        began.append(time.perf_counter())
        return study.loss(step)

    _forget_peak(target)
    before = _memory(target)
    config = config.model_copy(update={"validate_every": config.steps + 1})
    loop = Loop(study.module, config, loss_of=loss, look=lambda: {"error": 0.0}, by="error")
    loop.run(checkpoint=lambda *_: None, progress=silent)
    gaps = [after - start for start, after in pairwise(began[WARM_UP:])]
    return TrainBench(
        encoder=config.encoder_arch,
        decoder="joined" if joined else "factored",
        precision=config.precision,
        batch=config.batch,
        points=config.points,
        steps_per_second=1 / median(gaps),
        memory_mb=_memory(target) - before,
    )


class JoinedDecoder(Decoder):
    """The decoder as the authors run it: the embedding is joined to the code of every point."""

    @classmethod
    def like(cls, other: Decoder) -> JoinedDecoder:
        """Give a decoder of the same sizes and weights."""
        first = other.before[0]
        assert isinstance(first, nn.Linear)
        made = cls(
            other.embedding,
            hidden=first.in_features,
            octaves=other.octaves,
            outputs=other.last.out_features,
            reads=other.reads,
            coding=other.coding,
        )
        made.load_state_dict(other.state_dict())
        return made

    def _joined(self, layer: nn.Linear, z: Tensor, coded: Tensor) -> Tensor:
        of_object = z[..., None, -self.reads :].expand(*coded.shape[:-1], self.reads)
        return linear(torch.cat([of_object, coded], -1), layer.weight, layer.bias)


def _forget_peak(device: torch.device) -> None:
    """Let the peak start anew: reading the fields may have taken more than a step does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5")


def _memory(device: torch.device) -> float:
    """Give the peak so far, in 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_memory()
