"""One shard of fields from weights to embeddings. Runs in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.device import quick_products, use_bfloat16
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.encoder import RowsEncoder, pooled
from nf2vec_cli.models.matching import ALIGNED, correlation
from nf2vec_cli.models.network import NetworkSpec, weight_rows
from nf2vec_cli.store.blocks import Rows, ahead
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.aligned_store import least_alike
from nf2vec_cli.tasks.encoders import Trained, open_encoder

TOGETHER = 32  # objects that a GPU embeds at once: 100 MB for each layer at the paper's size


@dataclass(frozen=True)
class Embedded:
    """Rows of a shard, their embeddings [B, E], and which of them are to be kept."""

    rows: Rows
    z: Floats
    sound: NDArray[np.bool_]


class ShardEncoder:
    """An encoder at work on a store that is open.

    A shard is always computed whole, so that an embedding is the same bits whichever objects are
    asked for.
    """

    def __init__(self, store: Store, trained: Trained, device: torch.device) -> None:
        self.store, self.spec = store, trained.module.encoder.spec
        self.embed, self.least = embedder(trained.module, device), least_alike(store)

    def read(self, rows: Rows) -> Floats:
        """Read the fields of a shard, by those of its rows that are fitted: [batch, P]."""
        start, batch = self.store.init, self.store.batch
        theta = np.broadcast_to(start, (batch, len(start))).copy()
        theta[rows % batch] = self.store.weights(rows)
        return theta

    def encode(self, rows: Rows, theta: Floats) -> Embedded:
        """Embed what was read."""
        sound = aligned(theta, self.store.init, self.spec, self.least)
        z: Floats = self.embed(torch.from_numpy(theta)).numpy()
        here = rows % self.store.batch
        return Embedded(rows, z[here], (sound & np.isfinite(z).all(1))[here])

    def encode_all(self, shards: Iterable[Rows]) -> Iterator[Embedded]:
        """Embed shards one after another, while the next is being read."""
        for rows, theta in ahead(lambda rows: (rows, self.read(rows)), shards):
            yield self.encode(rows, theta)


def encode_shard(rows: Rows, *, path: Place, key: str, device: torch.device) -> Embedded:
    """Embed one shard of a store, by the encoder that it holds under `key`."""
    opened = _opened(path, key, device)
    return opened.encode(rows, opened.read(rows))


@lru_cache(maxsize=1)  # a worker opens a store and its encoder once, not for each shard
def _opened(path: Place, key: str, device: torch.device) -> ShardEncoder:
    store = open_store(path)
    return ShardEncoder(store, open_encoder(store, key), device)


def embedder(module: AutoEncoder, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Give the function from weights [B, P] to embeddings [B, E], both on the CPU."""
    encoder = module.encoder.to(device).eval()
    if not isinstance(encoder, RowsEncoder):

        @torch.inference_mode()
        def straight(theta: Tensor) -> Tensor:
            found: Tensor = encoder(theta.to(device)).cpu()
            return found

        return straight
    # as it was trained: in bfloat16 where the device has units for it (4 times as fast on a CPU
    # with AVX-512 BF16, 0.4 % away from single precision), else by the CPU's quicker library
    dtype = torch.bfloat16 if use_bfloat16("auto", device) else torch.float32
    rows, spec = encoder.folded().to(dtype), encoder.spec
    on_cpu = device.type == "cpu"

    @torch.inference_mode()
    def folded(theta: Tensor) -> Tensor:
        # an object's rows are a batch of their own, and their activations stay in the cache
        parts = theta.split(1 if on_cpu else TOGETHER)
        with quick_products() if on_cpu else nullcontext():
            each = [pooled(rows, weight_rows(part.to(device, dtype), spec)) for part in parts]
        return torch.cat(each).float().cpu()

    return folded


def aligned(
    theta: Floats, init: Floats, spec: NetworkSpec, least: float | None = None
) -> NDArray[np.bool_]:
    """Tell which fields are finite and correlate with the init in their hidden weights.

    least: in a store that `align` made, what their matrices alone have to reach (`least_alike`):
    matching makes the biases of any field alike.
    """
    both = torch.from_numpy(theta), torch.from_numpy(init)
    alike = correlation(*both, spec, biases=least is None)
    found: NDArray[np.bool_] = (alike > ALIGNED if least is None else alike >= least).numpy()
    return found
