"""A store's fields as training material, and the module that learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.core.device import use_bfloat16
from nf2vec_cli.core.ranks import BatchShare, Ranks
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.batch_norm import share_norms
from nf2vec_cli.models.encoder import AlignedEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.split import SplitEncoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.held import HeldFields
from nf2vec_cli.tasks.lesson import Lesson
from nf2vec_cli.tasks.point_lesson import PointLesson
from nf2vec_cli.tasks.ray_lesson import RayLesson
from nf2vec_cli.tasks.teacher import SampleTeacher, generator_of

LOOKED_AT = 64  # val objects of a look
PROJECTED = (AlignedEncoder, SplitEncoder)  # by directions that training never changes
REBUILT = 16  # val objects that are rebuilt in the end
READ_AT_ONCE = 256  # fields
MOST_PROJECTED, PROJECTED_BYTES = 4_096, 1 << 30  # training fields that a projection is taken from


class Study:
    """The fields of a store as training material, and the module that learns from them.

    Each of several `ranks` works on its share of a batch, and its loss is that share of the mean.
    """

    def __init__(
        self,
        store: Store,
        fields: HeldFields,
        parts: tuple[Rows, Rows],
        config: TrainConfig,
        ranks: Ranks,
    ) -> None:
        self.store, self.fields, self.ranks = store, fields, ranks
        self.train, self.val = parts
        self.config, self.device = config, ranks.device
        self.spec = NetworkSpec(**store.network)
        self.amp = use_bfloat16(config.precision, self.device)
        if config.encoder_arch == "split" and store.field != "nerf":
            raise UsageFault(
                f"{store.field} fields have no appearance beside their geometry",
                hint=f"`nf2vec train {store.path} --encoder-arch aligned`",
            )
        self.lesson: Lesson
        if store.field == "nerf":
            self.lesson = RayLesson(store, config)
        else:
            self.lesson = PointLesson(store, fields, config.points)
        self.looked_at = _spread_over(self.val, LOOKED_AT)
        self._held: Tensor | None = None
        self._components, self._place = torch.empty(0), np.empty(0, np.int64)
        torch.manual_seed(config.seed)
        self.module = AutoEncoder(self.spec, config).to(self.device)
        share_norms(self.module, ranks)

    def ask_from(self, sources: Path | None, progress: Progress) -> None:
        """Prepare what the targets of training come from."""
        if self.config.supervise == "field":
            return
        if not isinstance(self.lesson, PointLesson):
            raise UsageFault(
                f"{self.store.field} fields are learnt from the stored fields, not from sources",
                hint=f"`nf2vec train {self.store.path} --supervise field`",
            )
        self.lesson.teacher = SampleTeacher(
            self.store, self.train, sources=sources, progress=progress, ranks=self.ranks
        )

    def project(self, progress: Progress) -> None:
        """Take the projection of an aligned encoder from the training fields."""
        self.ranks.lead(lambda: self._project(progress))
        self.ranks.agree(self.module)

    def _project(self, progress: Progress) -> None:
        encoder = self.module.encoder
        if isinstance(encoder, PROJECTED):
            progress.start(None, "projection")
            most = min(MOST_PROJECTED, PROJECTED_BYTES // (4 * self.spec.parameters))
            theta = self._theta(_spread_over(self.train, most))
            init = torch.from_numpy(self.store.init).to(self.device)
            encoder.fit_projection(theta, init, moves=self.config.moves)

    def read(self) -> None:
        """Keep what an aligned encoder reads of each field: training never changes it.

        In the same parts each time, so that a run that is resumed reads the same bits, and each
        process some of them.
        """
        encoder = self.module.encoder
        if isinstance(encoder, PROJECTED):
            rows = np.union1d(self.train, self.looked_at)
            parts = np.array_split(rows, -(-len(rows) // READ_AT_ONCE))
            found = torch.zeros(len(rows), encoder.reads, device=self.device)
            with self.ranks.together():
                for part in parts[self.ranks.share(len(parts)).at]:
                    place = np.searchsorted(rows, part)
                    found[place] = encoder.components(self._theta(part))
            self._components = self.ranks.add(found)
            self._place = np.full(self.store.slots, -1)
            self._place[rows] = np.arange(len(rows))

    def embed(self, rows: Rows, theta: Tensor) -> Tensor:
        """Embed fields of `read`."""
        encoder = self.module.encoder
        if isinstance(encoder, PROJECTED):
            return encoder.embed(self._components[self._place[rows]])
        found: Tensor = encoder(theta)
        return found

    def loss(self, step: int) -> Tensor:
        """Give the mean loss of a step's objects at its points, or this process's share of it."""
        generator = generator_of(self.config.seed, step)
        chosen = torch.randperm(len(self.train), generator=generator)[: self.config.batch]
        batch = self.train[chosen.numpy()]
        share = self.ranks.share(len(batch))
        rows = batch[share.at]
        theta = self._theta(rows)
        asked = self.lesson.draw(rows, theta, generator, share)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # of dropout
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            found = self.module.decoder(self._embedded(batch, share, theta), asked.coords)
        return self.lesson.loss(found.float(), asked) * share.weight

    def _embedded(self, batch: Rows, share: BatchShare, theta: Tensor) -> Tensor:
        """Embed a share of a batch.

        What is held is embedded for the whole batch, 1 % of a step: so noise and dropout are drawn
        as by one process.
        """
        if isinstance(self.module.encoder, PROJECTED):
            return share.of(self.embed(batch, theta))
        return self.embed(batch[share.at], theta)

    def look(self) -> dict[str, float]:
        """Compare decoded val objects with their stored fields."""
        rows = self.looked_at
        if self._held is None:
            self._held = self._theta(rows)
        return self.lesson.look(self.module, self.embed(rows, self._held), rows, self._held)

    @torch.no_grad()
    def rebuilt(self) -> dict[str, float]:
        """Make val objects from their embeddings, and measure them."""
        rows = self.looked_at[:REBUILT]
        return self.lesson.rebuilt(self.module, rows, self._theta(rows))

    def _theta(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self.fields.take(rows)).to(self.device)


def _spread_over(rows: Rows, most: int) -> Rows:
    """Choose at most so many rows, evenly."""
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen
