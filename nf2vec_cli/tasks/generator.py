"""Train the model that new embeddings of one class are drawn from, and keep it in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nf2vec_cli.config.generate import GenerateConfig
from nf2vec_cli.models.latent import Latent
from nf2vec_cli.models.latent_flow import LatentFlow
from nf2vec_cli.models.latent_gan import LatentGan
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.tasks.heads import has_head, head_key, open_head, save_head, train_head
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.teacher import generator_of

TASK = "generate"
LEAST = 8  # training objects
LOOK_SEED, LOOK_DRAWS, LOOK_SAMPLES = 2**40, 32, 256  # of a look at val


@dataclass(frozen=True)
class Trained:
    """A generator that can be drawn from: key, model, and what it took to train it."""

    key: str
    model: Latent
    steps: int
    best_step: int
    seconds: float


def generator_key(kept: Embeddings, class_name: str, train: Rows, config: GenerateConfig) -> str:
    """Name a generator: encoder, class, settings and the fields that it is trained on."""
    return head_key(kept.store, train, kept.key, class_name, config.model_dump_json())


def trained_generator(
    kept: Embeddings,
    class_name: str,
    parts: tuple[Rows, Rows],
    config: GenerateConfig,
    *,
    directions: int,
    device: torch.device,
    force: bool,
    progress: Progress,
) -> Trained:
    """Give the generator of a class: as it is kept, or trained now and kept; a run goes on.

    Args:
        kept: embeddings of a store that is open for writing.
        class_name: the class.
        parts: its rows to train on and to choose the best step by; the latter may be none.
        config: settings.
        directions: as `Latent` takes it.
        device: where it is trained.
        force: train again what is there.
        progress: told about each step.

    Raises:
        Nf2vecError: the loss is not finite any more.
        StoreError: what is kept is damaged.
    """
    store, key = kept.store, generator_key(kept, class_name, parts[0], config)
    if force or not has_head(store, TASK, key):
        real, val = (torch.from_numpy(kept.read(rows)).to(device) for rows in parts)
        torch.manual_seed(config.seed)
        model = Latent(config, real.shape[1], directions=directions).to(device)
        model.fit_statistics(real)
        real, val = model.standardise(real), model.standardise(val)
        if isinstance(model.net, LatentFlow):
            model.net.fit_normal(real, val, first=directions)
        loop = _loop(model, real, val, config)
        train_head(store, TASK, key, loop, force=force, progress=progress)
        save_head(
            store,
            TASK,
            key,
            loop,
            config=config,
            device=device,
            encoder=kept.key,
            class_name=class_name,
            size=real.shape[1],
            directions=directions,
            train_objects=len(parts[0]),
            val_objects=len(parts[1]),
            steps=loop.step,
            best_step=loop.curve.steps[loop.curve.best("error")],
            seconds=loop.curve.seconds,
        )
    model, facts = open_head(
        store, TASK, key, lambda f: Latent(config, f["size"], directions=f["directions"])
    )
    told = (facts[name] for name in ("steps", "best_step", "seconds"))
    return Trained(key, model.to(device), *told)


def _loop(model: Latent, real: Tensor, val: Tensor, config: GenerateConfig) -> Loop:
    """Put a model and standardised embeddings to work; without val objects, train is looked at."""
    looked_at = val if len(val) else real
    batch = min(config.batch, len(real))
    net, steps = model.net, config.steps
    look: Callable[[], dict[str, float]]
    if isinstance(net, LatentGan):
        turn = config.critic_steps + 1
        if config.epochs:
            passes = config.epochs * (len(real) // batch)
            steps = max(passes // config.critic_steps, 1) * turn

        def loss_of(step: int) -> Tensor:
            generator = generator_of(config.seed, step)
            if step % turn == config.critic_steps:
                return net.generator_loss(batch, generator=generator)
            chosen = torch.randperm(len(real), generator=generator)[:batch]
            return net.critic_loss(real[chosen], penalty=config.penalty, generator=generator)

        def look() -> dict[str, float]:
            drawn = net.sample(LOOK_SAMPLES, generator=generator_of(0, LOOK_SEED))
            return {"error": energy_distance(drawn, looked_at)}
    else:

        def loss_of(step: int) -> Tensor:
            generator = generator_of(config.seed, step)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout
            chosen = torch.randint(len(real), (config.batch,), generator=generator)
            return net.loss(real[chosen], generator=generator)

        def look() -> dict[str, float]:
            many = looked_at.repeat(LOOK_DRAWS, 1)
            return {"error": float(net.loss(many, generator=generator_of(0, LOOK_SEED)))}

    return Loop(
        model,
        config.model_copy(update={"steps": steps}),
        loss_of=loss_of,
        look=look,
        by="error",
        betas=(config.beta1, 0.999),
    )


def energy_distance(a: Tensor, b: Tensor) -> float:  # [G, E], [R, E]
    """Tell how far apart the distributions of two samples are; 0 at best (Székely 2013)."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / max(len(x) * (len(x) - 1), 1)

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))
