"""How fields of distance and occupancy are learnt: their values at points near the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.core.ranks import BatchShare
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.rebuild import Form, build
from nf2vec_cli.tasks.score import compare
from nf2vec_cli.tasks.teacher import FieldTeacher, Teacher, generator_of

LOOK_POINTS, LOOK_SEED = 1_024, 2**40
REBUILT_AT = 64  # grid points an axis


@dataclass(frozen=True)
class Points:
    """Points of B objects, [B, M, 3], and the values wanted there, [B, M]."""

    coords: Tensor
    values: Tensor


class PointLesson:
    """Values at points: those of the stored fields, or what another teacher says."""

    def __init__(self, store: Store, fields: HeldFields, count: int) -> None:
        self.store, self.fields, self.count = store, fields, count
        self.field = field_of(store.field)
        self.point_loss = self.field.point_loss(fit_config(store))
        self.teacher: Teacher = FieldTeacher(store, fields)
        self._held: Points | None = None

    def draw(
        self, rows: Rows, theta: Tensor, generator: torch.Generator, share: BatchShare | None = None
    ) -> Points:
        """Ask the teacher."""
        return Points(*self.teacher.ask(rows, theta, self.count, generator, share))

    def loss(self, outputs: Tensor, asked: Points) -> Tensor:
        """Give the mean loss of the points, as in the fit."""
        found = outputs[..., 0]
        each, slope = self.point_loss(found.detach(), self.field.labels(asked.values))
        # the loss comes with its slope written out: this has its value, and its slope as gradient
        passed: Tensor = ((found - found.detach()) * slope + each).mean()
        return passed

    def look(self, module: AutoEncoder, z: Tensor, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Compare decoded objects with their stored fields, near the surface."""
        if self._held is None:
            generator = generator_of(0, LOOK_SEED)
            teacher = FieldTeacher(self.store, self.fields)
            self._held = Points(*teacher.ask(rows, theta, LOOK_POINTS, generator))
        found = self.field.read_back(module.decoder(z, self._held.coords)[..., 0])
        return {"error": float((found - self._held.values).abs().mean())}

    def rebuilt(self, module: AutoEncoder, rows: Rows, theta: Tensor) -> dict[str, float]:
        """Rebuild objects from their embeddings: mean Chamfer distance and F-score at 1 %."""
        z = module.eval().encoder(theta)
        found = []
        for one, points in zip(z, self.fields.surface(rows), strict=True):
            field = DecodedField(module.decoder, one, self.store.field)
            with torch.enable_grad():
                built = build(
                    field, self.store.field, Form.cloud, resolution=REBUILT_AT, points=len(points)
                )
            quality = compare(built.shape, Cloud(points.astype(float), None, ()))
            if quality.chamfer is not None and quality.f1 is not None:
                found.append((quality.chamfer, quality.f1))
        if not found:
            return {}
        chamfer, f1 = np.array(found).mean(0).tolist()
        return {"chamfer": chamfer, "f1": f1}
