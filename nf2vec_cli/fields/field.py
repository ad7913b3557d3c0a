"""What the file of each kind of field gives: the one place where the kinds meet."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

import numpy as np
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import PointLoss
from nf2vec_cli.fields import FieldName
from nf2vec_cli.fields.pool import Pool
from nf2vec_cli.shapes.load import Shape


class Field(Protocol):
    """A kind of field; `fields/sdf.py`, `udf.py` and `occ.py` are such objects as modules."""

    def prepare(self, shape: Shape, config: FitConfig, *, rng: np.random.Generator) -> Pool:
        """Measure the field of a shape in unit space at `config.pool` query points."""

    def point_loss(self, config: FitConfig) -> PointLoss:
        """Give the loss: outputs [..], labels [..] -> each point's loss and its slope."""

    def labels(self, values: Tensor) -> Tensor:
        """Map field values to labels in [0, 1]."""

    def read_back(self, outputs: Tensor) -> Tensor:
        """Turn network outputs into field values."""


def field_of(name: str) -> Field:
    """Import the file of a kind of field."""
    return cast(Field, import_module(f"nf2vec_cli.fields.{FieldName(name)}"))
