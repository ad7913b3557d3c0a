"""The one training loop: steps, looks at val, checkpoints, resume, the best model at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nf2vec_cli.core.ranks import ALONE, Ranks
from nf2vec_cli.errors import Nf2vecError
from nf2vec_cli.progress import Progress

State = dict[str, NDArray[Any]]
WARM_UP = 0.05  # share of the steps in which the step size grows (onecycle)


class Schedule(Protocol):
    """The settings that the loop reads; every verb's config that trains has them."""

    @property
    def steps(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def schedule(self) -> str: ...

    @property
    def clip(self) -> float: ...

    @property
    def validate_every(self) -> int: ...

    @property
    def checkpoint_every(self) -> int: ...

    @property
    def patience(self) -> int: ...


@dataclass
class Curve:
    """What is known of a run: losses by step, and what each look at val found. Plain values.

    seconds: spent on it so far, pauses between a kill and a resume left out.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    looks: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def best(self, by: str) -> int:
        """Give the number of the look with the least `by`; -1 if there was none."""
        values = [look[by] for look in self.looks]
        return int(np.argmin(values)) if values else -1


class Loop:
    """Trains a module by AdamW.

    `loss_of(step)` draws its own batch; `look()` gives val's numbers, of which `by` is to be least.
    Parameters without a gradient stay as they are: parts may take turns, each on its own loss.
    With several `ranks` the losses are shares that add up; rank 0 alone looks and keeps states.
    """

    def __init__(
        self,
        module: nn.Module,
        config: Schedule,
        *,
        loss_of: Callable[[int], Tensor],
        look: Callable[[], dict[str, float]],
        by: str,
        betas: tuple[float, float] = (0.9, 0.999),
        ranks: Ranks = ALONE,
    ) -> None:
        self.module, self.config, self.ranks = module, config, ranks
        self.loss_of, self.look, self.by = loss_of, look, by
        self.step = 0
        self.curve = Curve()
        self.kept: State = {}
        self._since = [0.0, 0]  # sum and number of the losses since the last look
        self.optimiser = torch.optim.AdamW(
            module.parameters(),
            lr=config.learning_rate,
            betas=betas,
            weight_decay=config.weight_decay,
        )

    def run(
        self, *, checkpoint: Callable[[State, dict[str, Any]], None], progress: Progress
    ) -> None:
        """Train to the end from where the loop stands; afterwards the module is the best one.

        Raises:
            Nf2vecError: the loss is not finite any more.
        """
        config = self.config
        began = time.monotonic() - self.curve.seconds
        progress.start(config.steps, "train")
        progress.advance(self.step)
        while self.step < config.steps and not self._stale():
            loss = self._one()
            if not math.isfinite(loss):
                raise Nf2vecError(
                    f"the loss is {loss} at step {self.step}: training diverged",
                    hint=f"`--set learning_rate={config.learning_rate / 3:.1g}`",
                )
            self.step += 1
            self.curve.seconds = time.monotonic() - began
            self._since[0] += loss
            self._since[1] += 1
            progress.advance(1, f"loss {loss:.4f}")
            if self.step % config.validate_every == 0 or self.step == config.steps:
                self._look()
            if self.step % config.checkpoint_every == 0 and self.step < config.steps:
                self.ranks.lead(lambda: checkpoint(*self.state()))
        self.module.load_state_dict({n: torch.from_numpy(v) for n, v in self.kept.items()})

    def state(self) -> tuple[State, dict[str, Any]]:
        """Give all that the loop needs to go on: arrays, and plain facts."""
        arrays = {f"now/{name}": value for name, value in arrays_of(self.module).items()}
        arrays |= {f"best/{name}": value for name, value in self.kept.items()}
        for number, parameter in enumerate(self.module.parameters()):
            for name, value in self.optimiser.state.get(parameter, {}).items():
                arrays[f"optimiser/{number}/{name}"] = value.detach().cpu().numpy().copy()
        facts = {"step": self.step, "curve": asdict(self.curve), "since": list(self._since)}
        return arrays, facts

    def restore(self, arrays: State, facts: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        parts: dict[str, State] = {"now": {}, "best": {}, "optimiser": {}}
        for name, value in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        self.module.load_state_dict({n: torch.from_numpy(v) for n, v in parts["now"].items()})
        self.kept = parts["best"]
        for number, parameter in enumerate(self.module.parameters()):
            prefix = f"{number}/"
            found = {
                name.removeprefix(prefix): torch.from_numpy(value)
                for name, value in parts["optimiser"].items()
                if name.startswith(prefix)
            }
            # the count of steps stays on the host, as AdamW keeps it
            found |= {n: v.to(parameter.device) for n, v in found.items() if n != "step"}
            if found:
                self.optimiser.state[parameter] = found
        self.step = facts["step"]
        self.curve = Curve(**facts["curve"])
        self._since = list(facts["since"])

    def _one(self) -> float:
        self.module.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._scale()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss_of(self.step)
        loss.backward()
        loss = self.ranks.add_up(loss, self.module.parameters())
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        self.optimiser.step()
        return float(loss)

    def _scale(self) -> float:
        if self.config.schedule == "constant":
            return 1.0
        at = self.step / self.config.steps
        if at < WARM_UP:
            return max(at / WARM_UP, 0.04)
        return 0.5 * (1 + math.cos(math.pi * (at - WARM_UP) / (1 - WARM_UP)))

    def _look(self) -> None:
        self.module.eval()
        with torch.no_grad():
            found = self.ranks.tell(self.ranks.lead(self.look))
        assert found is not None  # rank 0 has looked
        self.curve.steps.append(self.step)
        self.curve.losses.append(self._since[0] / max(self._since[1], 1))
        self.curve.looks.append(found)
        self._since = [0.0, 0]
        if self.curve.best(self.by) == len(self.curve.looks) - 1:
            self.kept = arrays_of(self.module)

    def _stale(self) -> bool:
        looks = len(self.curve.looks)
        since = looks - 1 - self.curve.best(self.by)
        return bool(self.config.patience and looks and since >= self.config.patience)


def arrays_of(module: nn.Module) -> State:
    """Copy a module's parameters and buffers, by name, to arrays on the CPU."""
    return {
        name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()
    }
