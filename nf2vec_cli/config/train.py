"""How an encoder and its decoder are trained. Saved with the encoder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from nf2vec_cli.config import Preset
from nf2vec_cli.config.strict import StrictModel

PROBES = range(7, 64, 4)


class TrainConfig(StrictModel):
    """How an encoder and its decoder are trained together. The defaults: preset small."""

    preset: Preset = Field(Preset.small, description="Sizes that the settings below start from.")

    encoder_arch: Literal["aligned", "paper"] = Field(
        "aligned",
        description="aligned: directions in which weights and fields differ; paper: rows.",
    )
    embedding: PositiveInt = Field(448, description="Numbers in an embedding (E).")
    components: PositiveInt = Field(
        192,
        description="Directions that are kept of the weights, and of each thing that is probed; "
        "those of weights and slopes are the first numbers of it (aligned).",
    )
    probes: int = Field(
        23,
        ge=0,
        description="Points along each axis at which a field is read from its weights: 7, 11, 15 "
        "and so on; 0: weights alone (aligned).",
    )
    moves: NonNegativeInt = Field(
        2,
        description="Times that each training field is read as if its object were moved a little: "
        "slopes that change with it count less; 0: all the same (aligned).",
    )
    widths: tuple[PositiveInt, ...] = Field(
        (128, 128, 256, 256), description="Units of the layers that each row goes through (paper)."
    )
    tail: PositiveInt = Field(512, description="Units that learn the rest of it (aligned).")
    hidden: PositiveInt = Field(128, description="Units in each layer of the decoder.")
    octaves: PositiveInt = Field(10, description="Octaves of the decoder's coordinate coding.")

    supervise: Literal["field", "samples"] = Field(
        "field", description="Targets: values of the stored fields, or measured on the sources."
    )
    points: PositiveInt = Field(512, description="Query points of an object in a step.")
    batch: int = Field(32, ge=2, description="Objects in a step.")
    steps: PositiveInt = Field(1_000, description="Steps at most.")
    learning_rate: PositiveFloat = Field(1e-3, description="AdamW's largest step size.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    schedule: Literal["onecycle", "constant"] = Field("onecycle", description="Step size.")
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0: any.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Components left out at random (aligned).")
    noise: float = Field(
        0.3, ge=0, description="Noise on components while training, in their spread (aligned)."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of products; auto: bfloat16 where the device is faster with it."
    )
    validate_every: PositiveInt = Field(250, description="Steps between two looks at val.")
    patience: NonNegativeInt = Field(
        0, description="Looks without a better one after which training ends; 0: never."
    )
    checkpoint_every: PositiveInt = Field(250, description="Steps between two checkpoints.")
    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")

    @property
    def directions(self) -> int:
        """How many first numbers of an embedding are components; the decoder reads the rest."""
        if self.encoder_arch != "aligned":
            return 0
        return self.components * (2 if self.probes else 1)

    @model_validator(mode="after")
    def _room_to_learn(self) -> TrainConfig:
        if self.embedding <= self.directions:
            raise ValueError(
                f"embedding {self.embedding} has no room beside {self.directions} components"
            )
        if self.probes and self.probes not in PROBES:
            raise ValueError(f"probes {self.probes} make no whole cells: 0, 7, 11, 15 .. 63 do")
        return self


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    # the authors' sizes and settings (their epochs: 300 of 100,000 shapes)
    Preset.paper: {
        "encoder_arch": "paper",
        # aligned: what an encoder at these sizes may cost
        "probes": 11,
        "components": 128,
        "embedding": 1024,
        "widths": (512, 512, 1024, 1024),
        "hidden": 512,
        "batch": 16,
        "points": 10_000,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "clip": 0.0,
        "steps": 1_875_000,
        "validate_every": 6_250,
        "checkpoint_every": 6_250,
    },
}


def train_defaults(preset: Preset) -> dict[str, Any]:
    """Give the settings of a preset that differ from TrainConfig's."""
    return {"preset": preset, **PRESETS[preset]}
