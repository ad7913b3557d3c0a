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
    points: PositiveInt = Field(1_250, description="Query points in a step, on the mean.")
    growth: float = Field(
        1.0, ge=0.01, le=100, description="Points of the last step over those of the first."
    )
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
        2, description="Iterations that make Muon's step orthogonal."
    )
    decay: Literal["linear", "none"] = Field("linear", description="Step size over the steps.")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "tf32", description="Of products on a GPU; sums are float32. On a CPU both are."
    )
    seed: NonNegativeInt = Field(0, description="Seed; each object's own is derived from its id.")

    target_error: float = Field(
        0, ge=0, description="Mean field error near the surface at which a fit stops; 0: never."
    )

    voxels: int = Field(64, ge=8, le=512, description="Cells along each axis (occ, of a mesh).")
    occupancy: Literal["shell", "solid"] = Field(
        "shell", description="Cells that count: on the surface (the paper), or inside too (occ)."
    )
    focal_alpha: float = Field(0.9, gt=0, lt=1, description="Weight of occupied cells (occ).")
    focal_gamma: float = Field(3.0, ge=0, description="Focus on cells that are wrong (occ).")

    octaves: int = Field(10, ge=1, le=24, description="Octaves of the coordinates' coding (nerf).")
    biases: bool = Field(False, description="Whether layers have biases (nerf).")
    background: str = Field(
        "", description="Colour that is taken for transparent: white, black or #rrggbb (nerf)."
    )
    views: int = Field(36, ge=4, le=200, description="Pictures that are made of a mesh (nerf).")
    size: int = Field(100, ge=16, le=1024, description="Pixels of their sides (nerf).")
    grid: int = Field(
        64, ge=16, le=128, multiple_of=2, description="Cells of the grid along an axis (nerf)."
    )
    samples: int = Field(
        128, ge=64, le=2048, description="Samples along the diagonal of the cube (nerf)."
    )
    step_samples: PositiveInt = Field(
        16_384, description="Samples of a step, as many rays as they make (nerf)."
    )

    normalise: Literal["box", "vertices"] = Field(
        "box", description="Centre: of the bounding box, or mean of the vertices (the paper)."
    )
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each surface that is fitted, cut by a plane; 1: all (udf, occ).",
    )
    sign: Literal["auto", "parity", "winding", "wrap"] = Field(
        "auto", description="How inside is told from outside (sdf)."
    )
    max_doubt: float = Field(
        0.05, ge=0, le=1, description="Largest share of points with a doubtful sign; above: failed."
    )

    codec: Literal["compact", "exact"] = Field("compact", description="How weights are kept.")
    bits: int = Field(8, ge=4, le=8, description="Bits a weight difference keeps (compact).")
    batch: PositiveInt = Field(64, description="Objects a commit writes, and a GPU fits at once.")
    shard_length: int = Field(
        0,
        ge=0,
        description="Objects of a file of weights, a multiple of batch; 0: by the first run's.",
    )

    @model_validator(mode="after")
    def _pool_feeds_a_step(self) -> FitConfig:
        most = 2 * self.points * max(self.growth, 1) / (1 + self.growth)
        if most > self.pool:
            raise ValueError(f"points ({most:.0f}) cannot exceed pool ({self.pool})")
        if self.shard_length % self.batch:
            told = f"shard_length ({self.shard_length}) is no multiple of batch ({self.batch})"
            raise ValueError(told)
        return self


# what only pictures and radiance have; it came later: other fields' products keep their names
RADIANCE = {"octaves", "biases", "views", "size", "background", "grid", "samples", "step_samples"}

PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    Preset.paper: {"hidden": 512, "batch": 16},
}
# the fast recipe differs with the width: a wider network wants fewer steps of more points, and
# bears few points at first (at width 128 that costs alignment)
FAST: dict[Preset, dict[str, Any]] = {
    Preset.small: {},
    Preset.paper: {
        "steps": 120,
        "points": 2_000,
        "growth": 3.0,
        "pool": 100_000,
        "muon_rate": 6e-3,
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

# what else a kind of field wants, whatever the preset; not tuned at width 512
FAST_FIELD: dict[str, dict[str, Any]] = {
    # the cusp at the surface wants many small steps; with most points in the first ones two fits
    # stay better connected (docs/performance.md)
    "udf": {
        "steps": 400,
        "points": 1_600,
        "growth": 0.2,
        "pool": 200_000,
        "muon_rate": 7e-4,
    },
    "occ": {"muon_rate": 2e-3, "focal_alpha": 0.5, "focal_gamma": 1.0},
    "nerf": {"steps": 400, "muon_rate": 0.06, "learning_rate": 1e-2, "momentum": 0.7},
}
AUTHORS_FIELD: dict[str, dict[str, Any]] = {
    "occ": {"pool": 64**3},
    # no script of theirs is public: nerfacc's example, which their code is made from, and what
    # their files tell
    "nerf": {
        "steps": 3_000,
        "samples": 1_024,
        "step_samples": 2**18,
        "grid": 96,
        "learning_rate": 1e-2,
        "decay": "linear",
    },
}
RADIANCE_SIZES: dict[Preset, dict[str, Any]] = {
    Preset.small: {"hidden": 64, "layers": 3},
    Preset.paper: {"hidden": 64, "layers": 3, "octaves": 24, "size": 224, "batch": 16},
}


def fit_defaults(preset: Preset, recipe: Recipe, field: str = "sdf") -> dict[str, Any]:
    """Give the settings of a preset, a recipe and a kind of field that differ from FitConfig's."""
    if recipe is Recipe.paper:
        chosen = AUTHORS | AUTHORS_FIELD.get(field, {})
    else:
        chosen = FAST[preset] | FAST_FIELD.get(field, {})
    sizes = RADIANCE_SIZES if field == "nerf" else PRESETS
    return {"preset": preset, "recipe": recipe, **sizes[preset], **chosen}
