"""Which neuron of one field is which of another: weight matching (Git Re-Basin)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nf2vec_cli.models.network import NetworkSpec, split_theta

SWEEPS = 100  # over all layers, at most: a handful are enough
GAIN = 1e-9  # relative to the inner product, below which a layer counts as settled
Permutation = NDArray[np.int64]


def match_neurons(a: Tensor, b: Tensor, spec: NetworkSpec, *, seed: int = 0) -> list[Permutation]:
    """Permute the hidden neurons of `b` so that its weights come closest to those of `a`.

    Weight matching of Ainsworth et al. 2022 (arXiv 2209.04836, algorithm 1), as the paper uses it
    in section VIII: coordinate descent over the layers in random order, from the identity; each
    layer, with the others held, is a linear assignment, solved exactly. It ends in a local optimum.
    A sine unit has another symmetry, sin(-x) = -sin(x): the signs of its incoming and outgoing
    weights may flip together. Plain weight matching leaves signs alone, and so does this.

    Args:
        a: weights of a field, [P].
        b: weights of another field of the same architecture, [P].
        spec: the architecture.
        seed: of the order of the layers.

    Returns:
        One permutation a hidden layer, [H] each: neuron i of `a` is neuron `permutation[i]` of `b`.
    """
    weights_a, biases_a = _layers(a, spec)
    weights_b, biases_b = _layers(b, spec)
    found = [np.arange(spec.hidden) for _ in range(spec.layers)]
    rng = np.random.default_rng(seed)
    for _ in range(SWEEPS):
        moved = False
        for layer in rng.permutation(spec.layers):
            into, out = weights_b[layer], weights_b[layer + 1]
            if layer > 0:
                into = into[:, found[layer - 1]]
            if layer + 1 < spec.layers:
                out = out[found[layer + 1]]
            alike = weights_a[layer] @ into.T + np.outer(biases_a[layer], biases_b[layer])
            alike += weights_a[layer + 1].T @ out  # [H, H], inner product of i of a and j of b
            rows, best = linear_sum_assignment(alike, maximize=True)
            gain = alike[rows, best].sum() - alike[rows, found[layer]].sum()
            if gain > GAIN * np.abs(alike[rows, best]).sum():
                found[layer], moved = best, True
        if not moved:
            break
    return found


def permuted(theta: Tensor, permutations: list[Permutation], spec: NetworkSpec) -> Tensor:
    """Reorder the hidden neurons of a field, [P] -> [P]: the same function in other weights."""
    weights, biases = split_theta(theta[None], spec)
    parts = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        w, b = weight[0], bias[0]
        if layer > 0:
            w = w[:, torch.from_numpy(permutations[layer - 1])]
        if layer < spec.layers:
            order = torch.from_numpy(permutations[layer])
            w, b = w[order], b[order]
        parts += [w.flatten(), b]
    return torch.cat(parts)


def unmoved(permutations: list[Permutation]) -> float:
    """Give the share of neurons that stay in their place, in [0, 1]."""
    return float(np.mean([order == np.arange(len(order)) for order in permutations]))


def _layers(
    theta: Tensor, spec: NetworkSpec
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    weights, biases = split_theta(theta.double()[None], spec)
    return [w[0].numpy() for w in weights], [b[0].numpy() for b in biases]
