"""The parent of every config."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StrictModel(BaseModel):
    """Settings that cannot change once made, and that refuse an unknown name, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _a_bool_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read `steps = true` as 1
        number = cls.model_fields[info.field_name or ""].annotation in (int, float)
        if number and isinstance(value, bool):
            raise ValueError("Input should be a number")
        return value
