"""Train the mapping from A's embeddings to B's, and keep it in A."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from nf2vec_cli.config.map import MapConfig
from nf2vec_cli.errors import StoreError
from nf2vec_cli.models.mapper import Mapper
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.products import (
    CHECKPOINTS,
    keys,
    load_state,
    newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    save_state,
)
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.loop import Loop, State, arrays_of
from nf2vec_cli.tasks.pairs import Pairs
from nf2vec_cli.tasks.teacher import generator_of

MAPPERS = "heads/map"
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
    if force or key not in keys(store, MAPPERS):
        sides = {
            split: [torch.from_numpy(z).to(device) for z in pairs.read(split)]
            for split in ("train", "val", "test")
        }
        torch.manual_seed(config.seed)
        module = Mapper(sides["train"][0].shape[1], sides["train"][1].shape[1], config).to(device)
        if config.standardise:
            module.fit_statistics(*sides["train"])
        loop = _loop(module, sides, config)
        if force:
            remove_checkpoints(store, key)
        elif (known := newest_checkpoint(store, key)) is not None:
            loop.restore(*load_state(store, CHECKPOINTS, known))

        def checkpoint(arrays: State, facts: dict[str, Any]) -> None:
            save_checkpoint(store, key, arrays, **facts)

        loop.run(checkpoint=checkpoint, progress=progress)
        best = loop.curve.best("error")
        save_state(
            store,
            MAPPERS,
            key,
            arrays_of(module),
            config=config.model_dump(mode="json"),
            sizes=[sides["train"][0].shape[1], sides["train"][1].shape[1]],
            encoder=pairs.a.key,
            target=str(pairs.b.store.path),
            target_encoder=pairs.b.key,
            target_field=pairs.b.store.field,
            target_init_hash=pairs.b.store.init_hash,
            curve=vars(loop.curve),
            result={
                **{f"{split}_pairs": len(rows) for split, (rows, _) in pairs.rows.items()},
                "steps": loop.step,
                "best_step": loop.curve.steps[best],
                "seconds": loop.curve.seconds,
                **{f"{split}_error": _error(module, sides, split) for split in ("val", "test")},
                "nearest_error": _nearest_error(module, sides),
            },
            tested=_name(pairs),
            ended=datetime.now(UTC).isoformat(),
            versions=versions(device),
        )
        remove_checkpoints(store, key)
    return _opened(pairs, key, config, device)


def nearest(module: Mapper, source: Tensor, train: Tensor) -> Tensor:  # [B, E], [N, E] -> [B]
    """Find the nearest training object of each, by standardised embeddings of A."""
    return torch.cdist(module.known(source), module.known(train)).argmin(1)


def _opened(pairs: Pairs, key: str, config: MapConfig, device: torch.device) -> Kept:
    store = pairs.a.store
    arrays, facts = load_state(store, MAPPERS, key)
    try:
        inputs, outputs = facts["sizes"]
        module = Mapper(inputs, outputs, config)
        module.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items()})
        result = dict(facts["result"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{store.path} is damaged: {MAPPERS}/{key} is no such mapper",
            hint="`--force` trains it again",
        ) from error
    module.eval()
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
