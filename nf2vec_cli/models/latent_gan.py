"""A generator of embeddings and its critic: WGAN with gradient penalty (paper, section V-D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LatentGan(nn.Module):
    """Two small networks: noise to embedding, and embedding to how real it seems.

    As the authors' (Latent-GAN of Achlioptas 2018), but the generator's last layer is linear:
    theirs ends in a ReLU, and embeddings have negative numbers too.
    """

    def __init__(
        self,
        size: int,
        *,
        noise: int,
        spread: float = 1.0,
        width: int = 128,
        critic: Sequence[int] = (256, 512),
    ) -> None:
        super().__init__()
        self.noise, self.spread = noise, spread
        self.generator = _layers(noise, (width,), size)
        self.critic = _layers(size, critic, 1)

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:  # -> [count, E]
        """Draw embeddings. The noise is drawn on the CPU: the same numbers on any device."""
        drawn = torch.randn(count, self.noise, generator=generator) * self.spread
        found: Tensor = self.generator(drawn.to(next(self.parameters()).device))
        return found

    def critic_loss(
        self, real: Tensor, *, penalty: float, generator: torch.Generator
    ) -> Tensor:  # [B, E]
        """Say how badly the critic tells drawn embeddings from real ones, plus its penalty."""
        with torch.no_grad():
            drawn = self.sample(len(real), generator=generator)
        share = torch.rand(len(real), 1, generator=generator).to(real.device)
        loss: Tensor = self.critic(drawn).mean() - self.critic(real).mean()
        return loss + penalty * self._steepness(drawn + share * (real - drawn))

    def generator_loss(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Say how false the critic finds drawn embeddings; only the generator gets a gradient."""
        self.critic.requires_grad_(False)
        try:
            loss: Tensor = -self.critic(self.sample(count, generator=generator)).mean()
        finally:
            self.critic.requires_grad_(True)
        return loss

    def _steepness(self, between: Tensor) -> Tensor:  # [B, E]
        """Mean squared difference of the critic's slope from 1, one point a sample."""
        at = between.detach().requires_grad_()
        slope = torch.autograd.grad(self.critic(at).sum(), at, create_graph=True)[0]
        steepness: Tensor = (slope.norm(dim=1) - 1).square().mean()
        return steepness


def _layers(into: int, widths: Sequence[int], out: int) -> nn.Sequential:
    """Stack linear layers with ReLU between them: Xavier weights, biases zero, as the authors."""
    made: list[nn.Module] = []
    for width in widths:
        made += [nn.Linear(into, width), nn.ReLU()]
        into = width
    stack = nn.Sequential(*made, nn.Linear(into, out))
    for layer in stack:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return stack
