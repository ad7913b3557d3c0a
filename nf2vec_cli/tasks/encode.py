"""Turn stored fields into embeddings: plan, do, record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.core.device import open_device, quick_products, use_bfloat16
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.encoder import RowsEncoder, pooled
from nf2vec_cli.models.matching import ALIGNED, correlation
from nf2vec_cli.models.network import NetworkSpec, weight_rows
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import Rows, Store, open_store
from nf2vec_cli.tasks.aligned_store import least_alike
from nf2vec_cli.tasks.encoders import keep_encoder, open_encoder, require_known_init

TOGETHER = 32  # objects that a GPU embeds at once: 100 MB for each layer at the paper's size


@dataclass(frozen=True)
class EncodeResult:
    """What `encode` did. strangers: ids of fields that are not aligned with the init."""

    encoder: str
    encoded: int
    skipped: int
    failed: int
    strangers: tuple[str, ...] = ()


def encode_store(
    path: Place,
    *,
    encoder: str | None = None,
    device: str = "auto",
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> EncodeResult:
    """Embed the fields that have no embedding yet, or whose weights have changed since.

    Shards are read while the one before is being embedded. A shard is always computed whole, so an
    embedding is the same bits whichever objects are asked for.

    Args:
        path: the store.
        encoder: as `open_encoder` takes it. One from elsewhere is copied into the store.
        device: "cpu", "cuda", "cuda:N" or "auto".
        force: embed all again.
        wait: seconds to wait for another run's lock.
        progress: told about each object.

    Raises:
        StoreError: no encoder fits, or nothing is fitted.
        InputError: a file is no encoder.
    """
    target = open_device(device)
    with store_lock(path, wait=wait), progress or Silent() as teller:
        store = open_store(path, mode="a")
        done = store.rows(Status.DONE)
        if not len(done):
            raise StoreError(
                f"{path} holds no fitted field",
                hint=f"run `nf2vec fit SHAPES --field {store.field} --store {path}` first",
            )
        require_known_init(store)
        trained = open_encoder(store, encoder)
        keep_encoder(store, trained)
        size = trained.module.decoder.embedding
        kept = Embeddings.open_or_make(store, trained.key, size)
        todo = done if force else np.setdiff1d(done, kept.current())
        embed, least = embedder(trained.module, target), least_alike(store)
        teller.start(len(todo), "encode")
        strangers: list[int] = []
        for rows, theta in _shards(store, todo):
            sound = aligned(theta, store.init, trained.module.encoder.spec, least)
            z = embed(torch.from_numpy(theta)).numpy()
            wanted = np.isin(rows, todo)
            good = wanted & sound & np.isfinite(z).all(1)
            strangers += rows[wanted & ~good].tolist()
            if good.any():
                kept.write(rows[good], z[good])
            teller.advance(int(wanted.sum()))
    names = store.column("id")
    return EncodeResult(
        trained.key,
        len(todo) - len(strangers),
        len(done) - len(todo),
        len(strangers),
        tuple(names[row] for row in strangers),
    )


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


def _shards(store: Store, todo: Rows) -> Iterator[tuple[Rows, Floats]]:
    """Yield each shard that has something to do, whole, while the next is being read."""
    status = store.column("status")

    def read(shard: int) -> tuple[Rows, Floats]:
        rows = np.arange(shard * store.batch, (shard + 1) * store.batch)
        theta = np.broadcast_to(store.init, (len(rows), len(store.init))).copy()
        there = rows[status[rows] == Status.DONE]
        theta[there - rows[0]] = store.weights(there)
        return rows, theta

    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for shard in np.unique(todo // store.batch):
            current, ahead = ahead, reader.submit(read, int(shard))
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()


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
