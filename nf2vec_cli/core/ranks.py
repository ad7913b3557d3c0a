"""Processes that train as one (torchrun): who each is, what they add up and tell one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pickle import dumps, loads  # nosec B403
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import Nf2vecError, UsageFault

T = TypeVar("T")
PATIENCE = 1800.0  # seconds that the others wait for what one does alone
ASKED = 5.0  # seconds to find torchrun's own store of keys


@dataclass(frozen=True)
class BatchShare:
    """What of a batch of `whole` objects one process works on: those `at`."""

    at: slice
    whole: int

    @property
    def weight(self) -> float:
        """How much of the batch it is: a mean over the share counts so much in the batch's."""
        return float((self.at.stop - self.at.start) / self.whole)

    def of(self, drawn: Tensor) -> Tensor:
        """Take the share's part of what is drawn for the whole batch."""
        return drawn[self.at]

    @classmethod
    def all(cls, count: int) -> BatchShare:
        """Give the share of a process that is alone."""
        return cls(slice(0, count), count)


class Ranks:
    """The processes of a run, of which this is number `rank`; one that is alone talks to nobody.

    All of them must call the methods that talk in the same order. Rank 0 leads: it alone writes.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> BatchShare:
        """Give this process's even part of `count` things: neighbours, at most one more or less."""
        bounds = (count * r // self.size for r in (self.rank, self.rank + 1))
        return BatchShare(slice(*bounds), count)

    def tell(self, value: T) -> T:
        """Give rank 0's value to all."""
        if self.size == 1:
            return value
        box = [value]
        with _peers_there():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def lead(self, work: Callable[[], T]) -> T | None:
        """Let rank 0 do something while the others wait; what goes wrong is raised in all.

        Returns:
            What it gave, at rank 0; None elsewhere (`tell` passes it on).
        """
        found: T | None = None
        with self.together():
            if self.leads:
                found = work()
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise in all processes what goes wrong in one of them; nothing inside may talk."""
        if self.size == 1:
            yield
            return
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        found: list[Exception | None] = [None] * self.size
        with _peers_there():
            dist.all_gather_object(found, mine if mine is None else _sent(mine))
        for rank, theirs in enumerate(found):
            if theirs is not None:
                raise theirs if rank != self.rank or mine is None else mine

    def add_up(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Add the losses of all shares, and their gradients in place, in one message.

        Each is its share's part of the batch's mean, so sums are the batch's. The gradients are not
        left to DistributedDataParallel: a step never calls the module as a whole (what an aligned
        encoder reads is held, the decoder is called by itself), and shares may differ in size.
        """
        if self.size == 1:
            return loss.detach()
        known = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([loss.detach().view(1), *(grad.flatten() for grad in known)])
        self.add(flat)
        parts = flat[1:].split([grad.numel() for grad in known])
        for grad, part in zip(known, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return flat[0]

    def add(self, values: Tensor) -> Tensor:
        """Add a tensor of each process, in place."""
        if self.size > 1:
            with _peers_there():
                dist.all_reduce(values)
        return values

    def joined(self, part: Tensor, count: int) -> Tensor:
        """Join the parts that `share(count)` made, [n, ...] of each process, to [count, ...]."""
        if self.size == 1:
            return part
        found = part.new_zeros(count, *part.shape[1:])
        found[self.share(count).at] = part
        return self.add(found)  # x + 0 is x, to the bit

    def agree(self, module: nn.Module) -> None:
        """Give all processes rank 0's parameters and buffers."""
        if self.size > 1:
            with _peers_there():
                for values in module.state_dict().values():
                    dist.broadcast(values, src=0)


def added(values: Tensor, ranks: Ranks) -> Tensor:
    """Give the sum of a tensor over all processes; differentiable, of the sum of their losses."""
    found: Tensor = _Added.apply(values, ranks)  # type: ignore[no-untyped-call]
    return found


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.add(values.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.add(grad.clone()), None


ALONE = Ranks(torch.device("cpu"))


@contextmanager
def open_ranks(device: str, *, wait: float | None = None) -> Iterator[Ranks]:
    """Join the other processes of a run that torchrun started; alone where it did not.

    They are found by torchrun's environment: WORLD_SIZE, RANK, LOCAL_RANK. On CUDA each takes the
    device of its LOCAL_RANK, and tensors there go by NCCL; all else by gloo. A process group that
    is there already is used as it is.

    Args:
        device: "cpu", "cuda", "cuda:N" or "auto".
        wait: seconds that rank 0 may wait for a lock, for which the others wait as well.

    Raises:
        UsageFault: one device is named for several processes.
        DeviceError: the device is not there.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(open_device(device), dist.get_rank(), dist.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        yield Ranks(open_device(device))
        return
    target = open_device(_own(device, size))
    gpu = target.type == "cuda"
    if gpu:
        torch.cuda.set_device(target)
    patience = timedelta(seconds=PATIENCE + (wait or 0))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=patience)
    yield Ranks(target, dist.get_rank(), size)
    # only where all went well: with a process missing NCCL would wait for it
    dist.destroy_process_group()


def leads() -> bool:
    """Tell whether this process is the one of its run that speaks, by torchrun's environment."""
    return os.environ.get("RANK", "0") == "0"


def first_to_say(text: str) -> bool:
    """Tell whether no other process of the run has said this: what all meet is said once.

    By torchrun's store of keys, which outlives the processes; without it all of them speak.
    """
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=ASKED),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"said/{attempt}/{sha256(text.encode()).hexdigest()}", 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


def _own(device: str, size: int) -> str:
    """Name a process's own device."""
    if device == "auto" and torch.cuda.is_available():
        device = "cuda"
    if device.startswith("cuda:"):
        raise UsageFault(
            f"device {device!r} is one for {size} processes",
            hint="`--device cuda` gives each its own",
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def _sent(error: Exception) -> Exception:
    """Give an error in a form that travels."""
    try:
        loads(dumps(error))  # nosec B301
    except Exception:  # whatever an odd class raises
        return Nf2vecError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _peers_there() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # a connection that is gone, or a time limit
        raise Nf2vecError(
            "another process of this run ended",
            hint="its message above says why; without one it was killed: memory, a signal",
        ) from error
