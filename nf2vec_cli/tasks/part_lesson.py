"""Labelled objects as training material for a head that tells parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from nf2vec_cli.config.segment import SegmentConfig
from nf2vec_cli.core.device import use_bfloat16
from nf2vec_cli.metrics import PartScore, part_score, parts_of_scores, shape_part_iou
from nf2vec_cli.models.segmenter import Segmenter
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.tasks.part_labels import Parts, PartSet
from nf2vec_cli.tasks.teacher import generator_of

TILE = 1 << 14  # points whose parts are told at once


def new_head(parts: Parts, embedding: int, config: SegmentConfig) -> Segmenter:
    """Make a head with random weights, the same for the same seed."""
    torch.manual_seed(config.seed)
    return Segmenter(
        embedding,
        len(parts.classes),
        len(parts.parts),
        hidden=config.hidden,
        octaves=config.octaves,
    )


@torch.no_grad()
def tell_parts(
    head: Segmenter,
    z: Tensor,  # [E]
    label: int,
    coords: Floats,  # [M, 3]
    allowed: Sequence[int],
) -> NDArray[np.int64]:  # [M]
    """Tell the part of each point of one object in unit space, among the parts of its class."""
    device = head.centre.device
    code, of = z[None].to(device), torch.tensor([label], device=device)
    found = []
    for part in torch.from_numpy(np.ascontiguousarray(coords)).split(TILE):
        scores = head(code, of, part.to(device)[None])[0]
        found.append(parts_of_scores(scores.cpu().numpy(), allowed))
    return np.concatenate(found)


class Lesson:
    """Labelled objects as training material, and the head that learns from them."""

    def __init__(
        self, objects: PartSet, z: Floats, config: SegmentConfig, device: torch.device
    ) -> None:
        self.objects, self.config, self.device = objects, config, device
        self.train, self.val = objects.of("train"), objects.of("val")
        self.z = torch.from_numpy(z)
        self.head = new_head(objects.names, z.shape[1], config).to(device)
        if config.standardise:
            self.head.standardise_by(self.z[self.train].to(device))
        self.amp = use_bfloat16(config.precision, device)
        self._labels = torch.from_numpy(objects.labels)
        counts = [len(points) for points in objects.points]
        self._counts = torch.tensor(counts)
        self._starts = self._counts.cumsum(0) - self._counts
        self._points = torch.from_numpy(np.concatenate(objects.points))
        self._truth = torch.from_numpy(np.concatenate(objects.truth))

    @property
    def steps(self) -> int:
        """Count the steps of a training."""
        batches = -(-len(self.train) // self.config.batch)
        return self.config.epochs * batches or self.config.steps

    def loss(self, step: int) -> Tensor:
        """Give the mean cross-entropy over all parts, of a step's objects at its points."""
        config, generator = self.config, generator_of(self.config.seed, step)
        drawn = torch.randperm(len(self.train), generator=generator)[: config.batch]
        chosen = torch.from_numpy(self.train)[drawn]
        share = torch.rand((len(chosen), config.points), generator=generator, dtype=torch.float64)
        at = self._starts[chosen, None] + (share * self._counts[chosen, None]).long()
        z = self.z[chosen]
        noise = config.noise * torch.randn(z.shape, generator=generator) if config.noise else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            scores = self.head(
                z.to(self.device),
                self._labels[chosen].to(self.device),
                self._points[at].to(self.device),
                None if noise is None else noise.to(self.device),
            )
        truth = self._truth[at].to(self.device)
        return cross_entropy(scores.float().flatten(0, 1), truth.flatten())

    def look(self) -> dict[str, float]:
        """Score val's objects; `miss`, the share of class mIoU that is missing, is to be least."""
        found = self.score(self.val)[0]
        return {
            "miss": 1 - found.class_miou,
            "class_miou": found.class_miou,
            "instance_miou": found.instance_miou,
        }

    def score(self, places: NDArray[np.int64]) -> tuple[PartScore, list[float]]:
        """Score objects on all their labelled points: the means, and each object's IoU."""
        self.head.eval()
        ious = [self._iou(int(place)) for place in places]
        return part_score(ious, self.objects.labels[places].tolist()), ious

    def _iou(self, place: int) -> float:
        names, label = self.objects.names, int(self.objects.labels[place])
        allowed = names.of_class[names.classes[label]]
        found = tell_parts(self.head, self.z[place], label, self.objects.points[place], allowed)
        return shape_part_iou(self.objects.truth[place], found, allowed)
