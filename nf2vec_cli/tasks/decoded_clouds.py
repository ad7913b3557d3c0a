"""Embeddings decoded to points on the surfaces they stand for, in worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from nf2vec_cli.metrics import Points
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.progress import Progress
from nf2vec_cli.shapes.cloud import Cloud
from nf2vec_cli.store.codec import Floats
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.decoded_radiance import DecodedRadiance
from nf2vec_cli.tasks.radiance_cloud import Lens, decoded_radiance, radiance_cloud
from nf2vec_cli.tasks.rebuild import Form, build
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

DECODED_AT = 64  # grid points an axis
Clouds = Sequence[Points | None]  # None: no surface


def decoded_clouds(
    decoder: Decoder,
    kind: str,
    parts: Mapping[str, Floats],
    *,
    points: int,
    jobs: int,
    progress: Progress,
    lens: Lens | None = None,
) -> dict[str, Clouds]:
    """Decode embeddings [N, E] by name to clouds of so many points each, in unit space.

    lens: how radiance is looked at; its clouds are of what is seen.
    """
    each = [torch.from_numpy(z) for part in parts.values() for z in part]
    work: list[DecodedField] | list[DecodedRadiance]
    if lens is not None:
        work = [decoded_radiance(decoder, z, lens) for z in each]
        draw = partial(radiance_cloud, lens=lens, points=points)
    else:
        work = [DecodedField(decoder, z, kind) for z in each]
        draw = partial(_cloud, kind=kind, points=points)
    progress.start(len(work), "decode")
    found: list[Points | None] = []
    for cloud in spread(draw, work, workers=max(1, min(jobs or available_cores(), len(work)))):
        found.append(None if isinstance(cloud, WorkerDied) else cloud)
        progress.advance(1)
    rest = iter(found)
    return {name: [next(rest) for _ in part] for name, part in parts.items()}


def _cloud(field: DecodedField, *, kind: str, points: int) -> Points | None:
    """Draw points of one decoded surface, in a worker; a udf may give less than were asked for."""
    built = build(field, kind, Form.cloud, resolution=DECODED_AT, points=points).shape
    assert isinstance(built, Cloud)
    return built.points if len(built.points) else None
