"""How fields from elsewhere are brought to a store's init. Saved with the run."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nf2vec_cli.config.strict import StrictModel


class AlignConfig(StrictModel):
    """How fields are brought to the shared init by symmetries of their function."""

    gate: float = Field(
        0.5, gt=-1, le=1, description="Correlation with the init below which a field is aligned."
    )
    chance: float = Field(
        1.25,
        ge=1,
        description="Times what matching makes of random weights: hidden matrices that correlate "
        "less with the init are called strange.",
    )
    tolerance: PositiveFloat = Field(
        1e-5, description="Largest change of a field's outputs; of those above 1, of their share."
    )
    points: PositiveInt = Field(1_000, description="Random points at which that is looked at.")
    seed: NonNegativeInt = Field(0, description="Seed of those points and of the layers' order.")
