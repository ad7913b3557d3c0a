"""Settings of each verb: pydantic models, free of torch.

The package itself loads no pydantic either, so that options can offer the names below.
"""

from enum import StrEnum

SURFACE_POINTS = 2048  # kept of each object's surface, beside its weights: 10 KB compressed


class Preset(StrEnum):
    """An architecture."""

    small = "small"
    paper = "paper"


class Recipe(StrEnum):
    """A way to fit it."""

    fast = "fast"
    paper = "paper"


class Origin(StrEnum):
    """What a field is read from: its own weights, or its embedding and a decoder."""

    weights = "weights"
    embeddings = "embeddings"
