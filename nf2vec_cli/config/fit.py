"""How a neural field is fitted. Saved in the store, once, when the store is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.strict import StrictModel


class FitConfig(StrictModel):
    """How one neural field is fitted to one object. The defaults: preset small, recipe fast."""

    preset: Preset = Field(
        Preset.small, description="Architecture that the sizes below start from."
    )
    recipe: Recipe = Field(Recipe.fast, description="Optimisation that the settings start from.")

    hidden: int = Field(128, ge=16, multiple_of=16, description="Units in each hidden layer (H).")
    layers: int = Field(4, ge=2, description="Hidden layers (L).")
    omega: PositiveFloat = Field(30.0, description="Factor in each sine, in radians.")
    init_seed: NonNegativeInt = Field(0, description="Seed of the shared init of a new store.")

    steps: PositiveInt = Field(150, description="Optimiser steps for each object.")
    points: PositiveInt = Field(1_250, description="Query points in each step.")
    pool: int = Field(50_000, ge=1_000, description="Query points prepared for each object.")
    draw: Literal["stratified", "uniform"] = Field(
        "stratified", description="How a step's points come from the pool."
    )
    optimiser: Literal["muon", "adam"] = Field(
        "muon", description="muon: Muon on the hidden matrices, Adam on the rest; adam: Adam."
    )
    learning_rate: PositiveFloat = Field(5e-4, description="Adam's first step size.")
    muon_rate: PositiveFloat = Field(5e-3, description="Muon's first step size (muon).")
    momentum: float = Field(0.8, ge=0, lt=1, description="Momentum of Muon, and Adam's beta1.")
    beta2: float = Field(0.99, gt=0, lt=1, description="Adam's second-moment decay.")
    newton_schulz: PositiveInt = Field(
        3, description="Iterations that make Muon's step orthogonal."
    )
    decay: Literal["linear", "none"] = Field("linear", description="Step size over the steps.")
    seed: NonNegativeInt = Field(0, description="Seed; each object's own is derived from its id.")

    normalise: Literal["box", "vertices"] = Field(
        "box", description="Centre: of the bounding box, or mean of the vertices (the paper)."
    )
    max_doubt: float = Field(
        0.05, ge=0, le=1, description="Largest share of points with a doubtful sign; above: failed."
    )

    codec: Literal["compact", "exact"] = Field("compact", description="How weights are kept.")
    bits: int = Field(8, ge=4, le=8, description="Bits a weight difference keeps (compact).")
    batch: PositiveInt = Field(64, description="Objects a commit writes; the store's shard length.")

    @model_validator(mode="after")
    def _pool_feeds_a_step(self) -> FitConfig:
        if self.points > self.pool:
            raise ValueError(f"points ({self.points}) cannot exceed pool ({self.pool})")
        return self


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    Preset.paper: {"hidden": 512, "batch": 16},
}
# the fast recipe differs with the width: a wider network wants fewer, larger steps
FAST: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    Preset.paper: {
        "steps": 120,
        "points": 2_500,
        "pool": 100_000,
        "muon_rate": 6e-3,
        "newton_schulz": 2,
    },
}
AUTHORS: dict[str, Any] = {
    "steps": 500,
    "points": 10_000,
    "pool": 600_000,
    "draw": "uniform",
    "optimiser": "adam",
    "learning_rate": 1e-4,
    "momentum": 0.9,
    "beta2": 0.999,
    "decay": "none",
    "normalise": "vertices",
}


def fit_defaults(preset: Preset, recipe: Recipe) -> dict[str, Any]:
    """Give the settings of a preset and a recipe that differ from FitConfig's own defaults."""
    chosen = AUTHORS if recipe is Recipe.paper else FAST[preset]
    return {"preset": preset, "recipe": recipe, **PRESETS[preset], **chosen}
