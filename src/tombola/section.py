"""What every section of a study file has in common: validated, frozen, no unknown fields."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# The largest values that fields take: more than anyone needs, and little enough to plan with.
MOST_ARMS = 200
MOST_ITERATIONS = 10**9  # also epochs, examples and everything else that is counted in them
MOST_LEVELS = 999  # rounds; the numbers of random draws leave room for 1,000 levels
MOST_MILESTONES = 300
MOST_POINTS = 10_000
MOST_REPEATS = 10_000  # trials, repetitions in a trial, copies
MOST_REWINDS = 100
LARGEST_SEED = 2**63 - 1


def as_name(value: Any) -> Any:
    """Return the name that a number stands for: layers of `nn.Sequential` have numbers as names. Others stay."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Section(BaseModel):
    """A frozen group of settings that knows which of them decide an outcome."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `trials: true`, which would else pass for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            section = cls._is_section(info.field_name or "")
            raise ValueError("this field does not take true or false" + ("; {} takes the defaults" if section else ""))
        return value

    @classmethod
    def _is_section(cls, name: str) -> bool:
        annotation = cls.model_fields[name].annotation
        kinds = (annotation, *get_args(annotation))
        return any(isinstance(kind, type) and issubclass(kind, Section) for kind in kinds)

    def identity(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, as JSON values.

        A setting that is added later, with a default that changes nothing, thus leaves old identities as they were -
        and a default must never change its meaning. A test freezes some identities.
        """
        return self.model_dump(mode="json", exclude_defaults=True)
