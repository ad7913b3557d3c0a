"""A store's fields as training material, and the module that learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.device import use_bfloat16
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.encoder import AlignedEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.progress import Progress
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.store import Rows, Store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.loop import Curve
from nf2vec_cli.tasks.rebuild import Form, build
from nf2vec_cli.tasks.score import compare
from nf2vec_cli.tasks.teacher import FieldTeacher, SampleTeacher, Teacher, generator_of

LOOKED_AT = 64  # val objects of a look
LOOK_POINTS, LOOK_SEED = 1_024, 2**40
REBUILT, REBUILT_AT = 16, 64  # val objects that are rebuilt in the end; grid points an axis
READ_AT_ONCE = 256  # fields
PROJECTED, PROJECTED_BYTES = 4_096, 1 << 30  # training fields that a projection is taken from


class Study:
    """The fields of a store as training material, and the module that learns from them."""

    def __init__(
        self,
        store: Store,
        fields: HeldFields,
        parts: tuple[Rows, Rows],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.store, self.fields = store, fields
        self.train, self.val = parts
        self.config, self.device = config, device
        self.spec = NetworkSpec(**store.network)
        self.field = field_of(store.field)
        self.point_loss = self.field.point_loss(FitConfig.model_validate(store.config))
        self.amp = use_bfloat16(config.precision, device)
        self.curve = Curve()
        self.teacher: Teacher = FieldTeacher(store, fields)
        self.looked_at = _spread_over(self.val, LOOKED_AT)
        self._held: tuple[Tensor, Tensor, Tensor] | None = None
        self._components, self._place = torch.empty(0), np.empty(0, np.int64)
        torch.manual_seed(config.seed)
        self.module = AutoEncoder(self.spec, config).to(device)

    def ask_from(self, sources: Path | None, progress: Progress) -> None:
        """Prepare what the targets of training come from."""
        if self.config.supervise == "samples":
            self.teacher = SampleTeacher(self.store, self.train, sources=sources, progress=progress)

    def project(self, progress: Progress) -> None:
        """Take the projection of an aligned encoder from the training fields."""
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            progress.start(None, "projection")
            most = min(PROJECTED, PROJECTED_BYTES // (4 * self.spec.parameters))
            theta = self._theta(_spread_over(self.train, most))
            init = torch.from_numpy(self.store.init).to(self.device)
            encoder.fit_projection(theta, init, moves=self.config.moves)

    def read(self) -> None:
        """Keep what an aligned encoder reads of each field: training never changes it.

        In the same parts each time, so that a run that is resumed reads the same bits.
        """
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            rows = np.union1d(self.train, self.looked_at)
            parts = np.array_split(rows, -(-len(rows) // READ_AT_ONCE))
            self._components = torch.cat([encoder.components(self._theta(part)) for part in parts])
            self._place = np.full(self.store.slots, -1)
            self._place[rows] = np.arange(len(rows))

    def embed(self, rows: Rows, theta: Tensor) -> Tensor:
        """Embed fields of `read`."""
        encoder = self.module.encoder
        if isinstance(encoder, AlignedEncoder):
            return encoder.embed(self._components[self._place[rows]])
        found: Tensor = encoder(theta)
        return found

    def loss(self, step: int) -> Tensor:
        """Give the mean loss of a step's objects at its points."""
        generator = generator_of(self.config.seed, step)
        chosen = torch.randperm(len(self.train), generator=generator)[: self.config.batch]
        rows = self.train[chosen.numpy()]
        theta = self._theta(rows)
        coords, values = self.teacher.ask(rows, theta, self.config.points, generator)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            found = self.module.decoder(self.embed(rows, theta), coords)[..., 0]
        found = found.float()
        each, slope = self.point_loss(found.detach(), self.field.labels(values))
        # the loss comes with its slope written out: this has its value, and its slope as gradient
        passed: Tensor = ((found - found.detach()) * slope + each).mean()
        return passed

    def look(self) -> dict[str, float]:
        """Compare decoded val objects with their stored fields, near the surface."""
        if self._held is None:
            theta = self._theta(self.looked_at)
            generator = generator_of(0, LOOK_SEED)
            coords, values = FieldTeacher(self.store, self.fields).ask(
                self.looked_at, theta, LOOK_POINTS, generator
            )
            self._held = theta, coords, values
        theta, coords, values = self._held
        z = self.embed(self.looked_at, theta)
        found = self.field.read_back(self.module.decoder(z, coords)[..., 0])
        return {"error": float((found - values).abs().mean())}

    @torch.no_grad()
    def rebuilt(self) -> tuple[float | None, float | None]:
        """Rebuild val objects from their embeddings: mean Chamfer distance and F-score at 1 %."""
        rows = self.looked_at[:REBUILT]
        theta = self._theta(rows)
        z = self.module.eval().encoder(theta).cpu()
        decoder = self.module.decoder.cpu()
        found = []
        for one, points in zip(z, self.fields.surface(rows), strict=True):
            field = DecodedField(decoder, one, self.store.field)
            with torch.enable_grad():
                built = build(
                    field, self.store.field, Form.cloud, resolution=REBUILT_AT, points=len(points)
                )
            quality = compare(built.shape, Cloud(points.astype(float), None, ()))
            if quality.chamfer is not None and quality.f1 is not None:
                found.append((quality.chamfer, quality.f1))
        self.module.decoder.to(self.device)
        if not found:
            return None, None
        chamfer, f1 = np.array(found).mean(0).tolist()
        return chamfer, f1

    def _theta(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.fields.take(rows)).to(self.device)


def _spread_over(rows: Rows, most: int) -> Rows:
    """Choose at most so many rows, evenly."""
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen
