"""How a classifier of embeddings is trained. Saved with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nf2vec_cli.config import Preset
from nf2vec_cli.config.strict import StrictModel


class ClassifyConfig(StrictModel):
    """How a classifier is trained (paper, section V-B). The defaults: preset small."""

    preset: Preset = Field(Preset.small, description="Settings that those below start from.")

    widths: tuple[PositiveInt, ...] = Field((512, 256), description="Units of the hidden layers.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Units left out at random.")
    standardise: bool = Field(
        True, description="Shift and scale each number of an embedding as split train has it."
    )
    stitchup: bool = Field(True, description="Add mixtures of embeddings of one class.")
    batch: int = Field(256, ge=2, description="Embeddings in a step, mixtures not counted.")
    steps: PositiveInt = Field(600, description="Steps at most.")
    learning_rate: PositiveFloat = Field(1e-3, description="AdamW's largest step size.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    schedule: Literal["onecycle", "constant"] = Field("onecycle", description="Step size.")
    clip: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0: any.")
    validate_every: PositiveInt = Field(20, description="Steps between two looks at val.")
    patience: NonNegativeInt = Field(
        0, description="Looks without a better one after which training ends; 0: never."
    )
    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")

    @property
    def checkpoint_every(self) -> int:
        """Training takes seconds: it is begun again rather than resumed."""
        return self.steps


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    # the authors' settings (their epochs: 150 of some 100,000 embeddings)
    Preset.paper: {
        "standardise": False,
        "steps": 58_500,
        "learning_rate": 1e-4,
        "validate_every": 1_950,
    },
}


def classify_defaults(preset: Preset) -> dict[str, Any]:
    """Give the settings of a preset that differ from ClassifyConfig's."""
    return {"preset": preset, **PRESETS[preset]}
