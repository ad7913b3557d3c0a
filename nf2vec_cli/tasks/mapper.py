"""Train the mapping from A's embeddings to B's, and keep it in A."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.config.map import MapConfig
from nf2vec_cli.models.mapper import Mapper
from nf2vec_cli.progress import Progress
from nf2vec_cli.tasks.heads import has_head, open_head, save_head, train_head
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.pairs import Pairs
from nf2vec_cli.tasks.teacher import generator_of

TASK = "map"
Sides = dict[str, list[Tensor]]  # by split: A's embeddings [N, E] and B's [N, F]


@dataclass(frozen=True)
class Kept:
    """A mapper that can be used: key, module on the CPU, and the facts that it was kept with."""

    key: str
    module: Mapper
    facts: dict[str, Any]


def mapper_key(pairs: Pairs, config: MapConfig) -> str:
    """Name a mapper: both embeddings, the settings, and the pairs it is trained and chosen on."""
    digest = sha256(config.model_dump_json().encode())
    for kept in (pairs.a, pairs.b):
        digest.update(f"/{kept.store.field}/{kept.store.init_hash}/{kept.key}".encode())
    digest.update(pairs.digests("train", "val"))
    return digest.hexdigest()[:16]


def trained_mapper(
    pairs: Pairs, config: MapConfig, *, device: torch.device, force: bool, progress: Progress
) -> Kept:
    """Give the mapper of these pairs: as it is kept in A, or trained now; a killed run goes on.

    Args:
        pairs: of a store A that is open for writing, and B.
        config: settings.
        device: where it is trained.
        force: train again what is there.
        progress: told about each step.

    Raises:
        Nf2vecError: the loss is not finite any more.
        StoreError: what is kept is damaged.
    """
    store, key = pairs.a.store, mapper_key(pairs, config)
    if force or not has_head(store, TASK, key):
        sides = {
            split: [torch.from_numpy(z).to(device) for z in pairs.read(split)]
            for split in ("train", "val", "test")
        }
        torch.manual_seed(config.seed)
        module = Mapper(sides["train"][0].shape[1], sides["train"][1].shape[1], config).to(device)
        if config.standardise:
            module.fit_statistics(*sides["train"])
        loop = _loop(module, sides, config)
        train_head(store, TASK, key, loop, force=force, progress=progress)
        best = loop.curve.best("error")
        save_head(
            store,
            TASK,
            key,
            loop,
            config=config,
            device=device,
            sizes=[sides["train"][0].shape[1], sides["train"][1].shape[1]],
            encoder=pairs.a.key,
            target=str(pairs.b.store.path),
            target_encoder=pairs.b.key,
            target_field=pairs.b.store.field,
            target_init_hash=pairs.b.store.init_hash,
            result={
                **{f"{split}_pairs": len(rows) for split, (rows, _) in pairs.rows.items()},
                "steps": loop.step,
                "best_step": loop.curve.steps[best],
                "seconds": loop.curve.seconds,
                **{f"{split}_error": _error(module, sides, split) for split in ("val", "test")},
                "nearest_error": _nearest_error(module, sides),
            },
            tested=_name(pairs),
        )
    return _opened(pairs, key, config, device)


def nearest(module: Mapper, source: Tensor, train: Tensor) -> Tensor:  # [B, E], [N, E] -> [B]
    """Find the nearest training object of each, by standardised embeddings of A."""
    return torch.cdist(module.known(source), module.known(train)).argmin(1)


def _opened(pairs: Pairs, key: str, config: MapConfig, device: torch.device) -> Kept:
    module, facts = open_head(
        pairs.a.store, TASK, key, lambda f: Mapper(f["sizes"][0], f["sizes"][1], config)
    )
    result = dict(facts["result"])
    if facts.get("tested") != _name(pairs):  # test objects have come since, or are others
        sides = {
            split: [torch.from_numpy(z) for z in pairs.read(split)] for split in ("train", "test")
        }
        result |= {
            "test_pairs": len(pairs.rows["test"][0]),
            "test_error": _error(module, sides, "test"),
            "nearest_error": _nearest_error(module, sides),
        }
    return Kept(key, module.to(device), facts | {"result": result})


def _name(pairs: Pairs) -> str:
    return sha256(pairs.digests("test")).hexdigest()[:16]


def _loop(module: Mapper, sides: Sides, config: MapConfig) -> Loop:
    source, target = sides["train"]
    wanted = module.wanted(target)

    def loss_of(step: int) -> Tensor:
        generator = generator_of(config.seed, step)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout, noise
        chosen = torch.randperm(len(source), generator=generator)[: config.batch]
        found = module.standardised(source[chosen])
        return (found - wanted[chosen]).square().mean()

    def look() -> dict[str, float]:
        return {"error": _error(module, sides, "val")}

    return Loop(module, config, loss_of=loss_of, look=look, by="error")


@torch.no_grad()
def _error(module: Mapper, sides: Sides, split: str) -> float:
    """Give the share of a split's variance, about the training mean, that is not explained."""
    return _unexplained(module, sides, split, module.eval().standardised(sides[split][0]))


def _nearest_error(module: Mapper, sides: Sides) -> float:
    """Give the same of taking the nearest training object's target for a test object's."""
    source, target = sides["train"]
    found = target[nearest(module, sides["test"][0], source)]
    return _unexplained(module, sides, "test", module.wanted(found))


def _unexplained(module: Mapper, sides: Sides, split: str, found: Tensor) -> float:
    wanted = module.wanted(sides[split][1])
    mean = module.wanted(sides["train"][1]).mean(0)
    return float((found - wanted).square().mean() / (mean - wanted).square().mean())
