"""Training that ends with a budget of CPU seconds, its step size spread over them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

LOOKS = 20  # at val
WARM = 0.05  # of the budget until the step size is largest
CLIP = 10.0  # norm of the gradient


@dataclass(frozen=True)
class Training:
    """What was done. seconds: spent on steps, looks at val not counted; score: the best look's."""

    steps: int
    seconds: float
    score: float


def step_size(share: float) -> float:
    """Give the step size, as a share of the largest, when a share of the budget is spent."""
    if share < WARM:
        return 0.1 + 0.9 * share / WARM
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (share - WARM) / (1 - WARM))))


def train(
    net: nn.Module,
    loss_of: Callable[[int], Tensor],
    look: Callable[[], float],
    *,
    seconds: float,
    rate: float,
) -> Training:
    """Train by Adam until the budget is spent, and leave the weights of the best look in `net`.

    Args:
        net: what is trained.
        loss_of: the loss of a step.
        look: tells how good `net` is on val; it is in eval mode then.
        seconds: of CPU time of all threads; of wall time where `net` is on a GPU.
        rate: the largest step size.
    """
    on_cpu = next(net.parameters()).device.type == "cpu"
    clock = time.process_time if on_cpu else time.monotonic
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    best, state, steps, looks, spent = -np.inf, {}, 0, 0, 0.0
    while spent < seconds:
        began = clock()
        net.train()
        optimiser.param_groups[0]["lr"] = rate * step_size(spent / seconds)
        loss = loss_of(steps)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimiser.step()
        steps, spent = steps + 1, spent + clock() - began
        due = int(LOOKS * min(spent / seconds, 1.0))
        if due > looks:
            looks = due
            net.eval()
            score = look()
            if score > best:
                best, state = score, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    net.eval()
    return Training(steps, spent, float(best))
