"""How the head that tells parts is trained. Saved with the head."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nf2vec_cli.config import Preset
from nf2vec_cli.config.strict import StrictModel


class SegmentConfig(StrictModel):
    """How the head that tells parts is trained on embeddings. The defaults: preset small."""

    preset: Preset = Field(Preset.small, description="Sizes that the settings below start from.")

    hidden: PositiveInt = Field(128, description="Units in each layer of the decoder.")
    octaves: PositiveInt = Field(6, description="Octaves of its coordinate coding.")
    standardise: bool = Field(
        True, description="Embeddings to mean 0 and deviation 1 over the training objects."
    )
    noise: float = Field(
        0.3, ge=0, description="Noise on embeddings while training, in their deviation."
    )
    space: Literal["source", "own"] = Field(
        "source",
        description="source: labelled points are in the units of the shapes that were fitted; "
        "own: each cloud is moved into the unit sphere by itself.",
    )

    points: PositiveInt = Field(256, description="Labelled points of an object in a step.")
    batch: PositiveInt = Field(32, description="Objects in a step.")
    steps: PositiveInt = Field(2_500, description="Steps at most, unless epochs are given.")
    epochs: NonNegativeInt = Field(
        0, description="Times as many steps as batches hold all training objects; 0: `steps`."
    )
    learning_rate: PositiveFloat = Field(2e-3, description="AdamW's largest step size.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    schedule: Literal["onecycle", "constant"] = Field("onecycle", description="Step size.")
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0: any.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of products; auto: bfloat16 where the device is faster with it."
    )
    validate_every: PositiveInt = Field(100, description="Steps between two looks at val.")
    patience: NonNegativeInt = Field(
        0, description="Looks without a better one after which training ends; 0: never."
    )
    checkpoint_every: PositiveInt = Field(500, description="Steps between two checkpoints.")
    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    # the authors' sizes and settings
    Preset.paper: {
        "hidden": 512,
        "octaves": 10,
        "standardise": False,
        "noise": 0.0,
        "points": 2_048,
        "batch": 256,
        "epochs": 250,
        "learning_rate": 1e-4,
        "clip": 0.0,
        "validate_every": 240,
    },
}


def segment_defaults(preset: Preset) -> dict[str, Any]:
    """Give the settings of a preset that differ from SegmentConfig's."""
    return {"preset": preset, **PRESETS[preset]}
