"""How new embeddings of a class are generated. Saved with the generator."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nf2vec_cli.config import Preset
from nf2vec_cli.config.strict import StrictModel


class GenerateConfig(StrictModel):
    """How a generator of one class's embeddings is trained. The defaults: preset small, flow."""

    preset: Preset = Field(Preset.small, description="Sizes that the settings below start from.")
    model: Literal["flow", "gan"] = Field(
        "flow", description="flow: flow matching; gan: the paper's WGAN with gradient penalty."
    )

    width: PositiveInt = Field(128, description="Units in each layer of the flow.")
    blocks: PositiveInt = Field(3, description="Residual blocks of the flow.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Units left out at random (flow).")
    stride: PositiveInt = Field(32, description="Steps from noise to an embedding (flow).")

    noise: PositiveInt = Field(128, description="Numbers of noise that are made into one (gan).")
    spread: PositiveFloat = Field(1.0, description="Standard deviation of that noise (gan).")
    generator: PositiveInt = Field(128, description="Units of the generator's layer (gan).")
    critic: tuple[PositiveInt, ...] = Field(
        (256, 512), min_length=1, description="Units of the critic's layers (gan)."
    )
    critic_steps: PositiveInt = Field(5, description="Critic's steps to one of the generator.")
    penalty: float = Field(10.0, ge=0, description="Weight of the gradient penalty (gan).")

    batch: int = Field(64, ge=2, description="Embeddings in a step.")
    steps: PositiveInt = Field(
        3_000, description="Steps at most; of a gan, critic's and generator's."
    )
    epochs: NonNegativeInt = Field(
        0, description="Passes over the class instead of steps, by the critic; 0: by steps (gan)."
    )
    learning_rate: PositiveFloat = Field(3e-4, description="Largest step size.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's memory of the gradient.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay.")
    schedule: Literal["onecycle", "constant"] = Field("onecycle", description="Step size.")
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0: any.")
    validate_every: PositiveInt = Field(25, description="Steps between two looks at val.")
    patience: NonNegativeInt = Field(
        20, description="Looks without a better one after which training ends; 0: never."
    )
    checkpoint_every: PositiveInt = Field(5_000, description="Steps between two checkpoints.")
    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")


# the authors' numbers that go with their model whatever its size
GAN: dict[str, Any] = {
    "learning_rate": 1e-4,
    "beta1": 0.5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "clip": 0.0,
    "batch": 50,
    "steps": 12_000,
    "validate_every": 300,
    "patience": 0,
}
PAPER: dict[str, Any] = {
    "noise": 1024,
    "spread": 0.2,
    "generator": 128,
    "critic": (256, 512),
    "critic_steps": 5,
    "penalty": 10.0,
    "epochs": 2_000,
}


def generate_defaults(preset: Preset, model: str | None = None) -> dict[str, Any]:
    """Give the settings of a preset and a model that differ from GenerateConfig's.

    preset paper is a gan unless a model is named; a flow has no authors' numbers.
    """
    chosen = model or ("gan" if preset is Preset.paper else GenerateConfig().model)
    values: dict[str, Any] = {"preset": preset, "model": chosen}
    if chosen == "gan":
        values |= GAN | (PAPER if preset is Preset.paper else {})
    return values
