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

    encoder_arch: Literal["aligned", "paper", "split"] = Field(
        "aligned",
        description="aligned: directions in which weights and fields differ; paper: rows; split: "
        "geometry and appearance apart (nerf).",
    )
    embedding: PositiveInt = Field(448, description="Numbers in an embedding (E).")
    components: PositiveInt = Field(
        192,
        description="Directions that are kept of the weights, and of each thing that is probed; "
        "some of them are the first numbers of an embedding (aligned).",
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
    leading: int = Field(
        2,
        ge=1,
        le=3,
        description="Whose directions are the first numbers: 1: of weights, 2: and of slopes, 3: "
        "and of values (aligned).",
    )
    widths: tuple[PositiveInt, ...] = Field(
        (128, 128, 256, 256), description="Units of the layers that each row goes through (paper)."
    )
    tail: PositiveInt = Field(512, description="Units that learn the rest of it (aligned).")
    hidden: PositiveInt = Field(128, description="Units in each layer of the decoder.")
    octaves: PositiveInt = Field(10, description="Octaves of the decoder's coordinate coding.")
    coding: Literal["radians", "turns"] = Field(
        "radians",
        description="radians: x and sin, cos of 2^k x; turns: of 2^k pi u, u from 0 to 1, without "
        "x, as in fields of radiance.",
    )

    supervise: Literal["field", "samples"] = Field(
        "field", description="Targets: values of the stored fields, or measured on the sources."
    )
    points: PositiveInt = Field(512, description="Query points of an object in a step.")
    rays: PositiveInt = Field(
        192, description="Rays of an object in a step that pass its grid, at most (nerf)."
    )
    step_samples: PositiveInt = Field(
        1_024, description="Samples on them, at most: with more there are fewer rays (nerf)."
    )
    empty: PositiveInt = Field(
        256, description="Points of an object in a step where its grid is empty (nerf)."
    )
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
        return self.components * (self.leading if self.probes else 1)

    @property
    def parts(self) -> dict[str, slice]:
        """Which numbers of an embedding tell what alone: none do, but of split."""
        if self.encoder_arch != "split":
            return {}
        half = self.embedding // 2
        return {"geometry": slice(0, half), "appearance": slice(half, self.embedding)}

    @model_validator(mode="after")
    def _room_to_learn(self) -> TrainConfig:
        if self.embedding <= self.directions:
            raise ValueError(
                f"embedding {self.embedding} has no room beside {self.directions} components"
            )
        if self.encoder_arch == "split" and not (self.probes and self.embedding % 2 == 0):
            raise ValueError("split: probes cannot be 0, half of an embedding is of geometry")
        if self.encoder_arch == "split" and self.embedding // 2 <= self.components:
            raise ValueError(
                f"half of embedding {self.embedding} has no room beside {self.components} "
                "components"
            )
        if self.probes and self.probes not in PROBES:
            raise ValueError(f"probes {self.probes} make no whole cells: 0, 7, 11, 15 .. 63 do")
        return self


# settings that came later, with values that change nothing: products without them keep their names
LATER = {"leading": 2, "coding": "radians", "rays": 192, "step_samples": 1_024, "empty": 256}

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


# what radiance wants besides. small: the lattice and what leads by the classes of objects held out,
# the coding by the loss after 400 steps. paper: the authors' framework (501 epochs of 95,000)
RADIANCE: dict[Preset, dict[str, Any]] = {
    Preset.small: {
        "embedding": 512,
        "components": 128,
        "probes": 19,
        "leading": 3,
        "octaves": 6,
        "coding": "turns",
        "batch": 16,
        "steps": 2_000,
    },
    Preset.paper: {
        "hidden": 1024,
        "octaves": 24,
        "coding": "turns",
        "rays": 512,
        "step_samples": 25_000,
        "empty": 10_000,
        "steps": 2_980_000,
        "validate_every": 59_400,
        "checkpoint_every": 5_940,
    },
}


def train_defaults(preset: Preset, field: str = "sdf") -> dict[str, Any]:
    """Give the settings of a preset, for a kind of field, that differ from TrainConfig's."""
    more = RADIANCE[preset] if field == "nerf" else {}
    return {"preset": preset, **PRESETS[preset], **more}
