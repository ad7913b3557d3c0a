"""How a mapping between the embeddings of two stores is learnt. Saved with the mapper."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nf2vec_cli.config import Preset
from nf2vec_cli.config.strict import StrictModel


class MapConfig(StrictModel):
    """How a mapping from one embedding to another is learnt. The defaults: preset small."""

    preset: Preset = Field(Preset.small, description="Sizes that the settings below start from.")

    mapper: Literal["mlp", "paper"] = Field(
        "mlp", description="mlp: GELU and dropout; paper: batch normalisation and ReLU."
    )
    layers: PositiveInt = Field(1, description="Hidden layers.")
    hidden: PositiveInt = Field(512, description="Units in each hidden layer.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Inputs of a layer left out (mlp).")
    noise: float = Field(
        0.5, ge=0, description="Noise on inputs while training, in their spread over train."
    )
    standardise: bool = Field(
        True, description="Numbers of both embeddings are brought to mean 0 and spread 1."
    )

    batch: int = Field(64, ge=2, description="Pairs in a step.")
    steps: PositiveInt = Field(1_000, description="Steps at most.")
    learning_rate: PositiveFloat = Field(5e-4, description="AdamW's largest step size.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    schedule: Literal["onecycle", "constant"] = Field("onecycle", description="Step size.")
    clip: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0: any.")
    validate_every: PositiveInt = Field(50, description="Steps between two looks at val.")
    patience: NonNegativeInt = Field(
        0, description="Looks without a better one after which training ends; 0: never."
    )
    checkpoint_every: PositiveInt = Field(1_000, description="Steps between two checkpoints.")
    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    # the authors' sizes and settings: eight matrices of 1024, 300 passes over 62,400 pairs
    Preset.paper: {
        "mapper": "paper",
        "layers": 7,
        "hidden": 1024,
        "dropout": 0.0,
        "noise": 0.0,
        "standardise": False,
        "batch": 256,
        "steps": 73_200,
        "learning_rate": 1e-4,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "validate_every": 2_440,
        "checkpoint_every": 2_440,
    },
}


def map_defaults(preset: Preset) -> dict[str, Any]:
    """Give the settings of a preset that differ from MapConfig's."""
    return {"preset": preset, **PRESETS[preset]}
