"""How fields that were fitted elsewhere are to be read: what a file of weights does not say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from nf2vec_cli.config.strict import StrictModel

OF_SINE = ("omega", "first_omega", "bias_outside")  # settings that ReLU units have no use for


class ImportConfig(StrictModel):
    """The architecture of fields from elsewhere, and what their inputs and outputs mean.

    Sizes are read from the matrices; those given here are checked against them.
    """

    field: Literal["", "sdf", "udf", "occ", "nerf"] = Field(
        "", description="Kind of field; empty: by --field, or as the layout says."
    )
    keys: str = Field(
        "",
        description="Names of the tensors, such as net.{layer}.linear.{part}: {layer} is a number, "
        "{part} weight or bias; empty: all that end in weight and bias, in their numbers' order.",
    )
    ignore: tuple[str, ...] = Field(
        (), description="Tensors to leave out, such as optimizer.*; any other unknown one fails."
    )
    hidden: NonNegativeInt = Field(0, description="Units in each hidden layer; 0: as found.")
    layers: NonNegativeInt = Field(0, description="Hidden layers; 0: as found, of flat weights 4.")
    activation: Literal["sine", "relu"] = Field(
        "sine", description="Of hidden units; radiance has relu."
    )
    omega: PositiveFloat = Field(30.0, description="Factor in each sine, in radians.")
    first_omega: float = Field(0.0, ge=0, description="That of the first layer; 0: the same.")
    bias_outside: bool = Field(
        False, description="Whether a unit is sin(omega W x + b), not sin(omega (W x + b))."
    )
    octaves: int = Field(
        0,
        ge=0,
        le=24,
        description="Octaves of the coordinates' coding (relu): of each axis in turn sin and cos "
        "of pi 2^k (x + 1) / 2, k < octaves; 0: of shapes no coding, of radiance as found.",
    )
    box: PositiveFloat = Field(
        1.0,
        description="Half the side of the cube around 0 that the field was fitted in; a coding of "
        "coordinates spans it.",
    )
    scale: float = Field(
        1.0, description="logit = scale * output + offset. 20 for signed distances, negative inside"
    )
    offset: float = Field(0.0, description="See scale.")

    @model_validator(mode="after")
    def _relu_has_no_omega(self) -> ImportConfig:
        fields = type(self).model_fields
        told = [name for name in OF_SINE if getattr(self, name) != fields[name].default]
        if self.activation == "relu" and told:
            raise ValueError(f"{told[0]} is of sine units, and activation is relu")
        return self
