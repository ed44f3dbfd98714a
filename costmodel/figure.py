"""A figure of a machine file: a number that says where it comes from, or that nobody knows it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
Flag = Annotated[bool, Field(strict=True)]


class Data(BaseModel):
    """What a machine file is made of: nothing but the fields that it says, and none of them changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Data):
    """One number with its source.

    `value` may be absent only with `unknown = true`. `range` is the interval worth sweeping. `assumption` names, in
    words, why a value that no source gives was chosen; such a figure is `unknown` and has a value, a range, or both.
    What the numbers may be depends on the figure's name; see `allowed`.
    """

    value: Number | None = None
    source: str
    unknown: Flag = False
    range: tuple[Number, Number] | None = None
    assumption: str | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _says_what_it_knows(self) -> Figure:
        if self.value is None and not self.unknown:
            raise ValueError("a figure without a value must say `unknown = true`")
        if self.unknown and self.value is not None and self.assumption is None:
            raise ValueError("a value for an unknown figure needs an `assumption` saying where it comes from")
        if self.unknown and self.range is None:
            raise ValueError("an unknown figure needs a `range = [low, high]` to sweep")
        if self.range is not None and not self.range[0] <= self.range[1]:
            raise ValueError("`range` must be [low, high] with low <= high")
        if self.value is not None and self.range is not None and not self.range[0] <= self.value <= self.range[1]:
            raise ValueError(f"value {self.value:g} lies outside its own range {list(self.range)}")
        return self

    @property
    def known(self) -> bool:
        return self.value is not None
