"""A study as its TOML file says it: policies, what they search, machines, budgets and seeds; checked before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from codesign.costmodel.faults import fault
from codesign.ir.errors import CodesignError

Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyPlan(_Plan):
    """A policy under a name of its own, with the arguments that it is made with."""

    policy: Name
    name: str = ""
    options: dict[str, int | float | str | bool] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"policy": given} if isinstance(given, str) else given

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.name or not self.options:
            return self.name or self.policy
        return f"{self.policy}({', '.join(f'{k}={v}' for k, v in self.options.items())})"


class KernelPlan(_Plan):
    """A kernel by its kind, dtype and sizes; or in short `gemm.4096x4096x4096`, `softmax.f32.8192x4096`."""

    kind: Name
    dtype: str = "bf16"
    sizes: dict[str, Annotated[int, Field(ge=1, le=1 << 31)]] | list[Annotated[int, Field(ge=1, le=1 << 31)]]

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        kind, *middle = given.split(".")
        numbers = middle.pop().split("x") if middle else []
        if not kind or not numbers or len(middle) > 1 or not all(n.isdecimal() for n in numbers):
            raise ValueError(f"{given!r} is not KIND.SIZES or KIND.DTYPE.SIZES, as in gemm.4096x4096x4096")
        data: dict[str, Any] = {"kind": kind, "sizes": [int(n) for n in numbers]}
        return data | ({"dtype": middle[0]} if middle else {})

    @property
    def label(self) -> str:
        """What tables call it."""
        values = self.sizes.values() if isinstance(self.sizes, dict) else self.sizes
        return f"{self.kind}.{'' if self.dtype == 'bf16' else self.dtype + '.'}{'x'.join(map(str, values))}"


class Budget(_Plan):
    """What a policy may spend on a problem: distinct schedules (`evaluations`), seconds of its own time (`seconds`), or as many schedules
    as random search needs to come the share `cutoff` of the way from the median to the best (Willemsen et al. 2024)."""

    evaluations: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    seconds: Annotated[float, Field(gt=0, le=86400)] | None = None
    cutoff: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_number(cls, given: Any) -> Any:
        if isinstance(given, int) and not isinstance(given, bool):
            return {"evaluations": given}
        if not isinstance(given, dict):
            raise ValueError(
                f"a budget is a number of schedules, {{ seconds = 2.5 }} or {{ cutoff = 0.95 }}, not {given!r}"
            )
        return given

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if sum(value is not None for value in (self.evaluations, self.seconds, self.cutoff)) != 1:
            raise ValueError("give one of evaluations, seconds and cutoff")
        return self

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.evaluations is not None:
            return f"{self.evaluations:,} evaluations"
        return f"{self.seconds:g} s" if self.seconds is not None else f"random to {self.cutoff:.0%}"


class StudyPlan(_Plan):
    """The whole study.

    `kernels`, `models` (model files, whose kernels are searched) and `spaces` (measured, by file) are what is searched; the first two on each
    of the `machines`. `fusions` compares fusion policies over the models. `seeds`: how many, or which. `fidelity`: of the cost model.
    """

    name: Name = "study"
    policies: list[PolicyPlan] = Field(default_factory=list)
    kernels: list[KernelPlan] = Field(default_factory=list)
    models: list[str] = Field(default_factory=list)
    spaces: list[str] = Field(default_factory=list)
    fusions: list[Name] = Field(default_factory=list)
    machines: list[Name] = Field(default_factory=lambda: ["h100_sxm"], min_length=1)
    budgets: list[Budget] = Field(default_factory=lambda: [Budget(evaluations=200)], min_length=1)
    seeds: Annotated[int, Field(ge=1, le=10_000)] | list[Annotated[int, Field(ge=0, lt=1 << 31)]] = 5
    fidelity: Annotated[int, Field(ge=0, le=2)] = 1

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, given: Any) -> Any:
        return _in_full(given)

    @field_validator("policies")
    @classmethod
    def _apart(cls, policies: list[PolicyPlan]) -> list[PolicyPlan]:
        labels = [policy.label for policy in policies]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ValueError(f"two policies are called {twice[0]!r}; give one a name")
        return policies

    @model_validator(mode="after")
    def _something(self) -> StudyPlan:
        if not (self.kernels or self.models or self.spaces):
            raise ValueError("nothing to search: give kernels, models or spaces")
        if not self.policies and not self.fusions:
            raise ValueError("nobody to search: give policies (or fusions, over models)")
        if self.fusions and not self.models:
            raise ValueError("fusions are compared over models: give models")
        return self

    @property
    def seed_list(self) -> list[int]:
        """The seeds, each once."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(dict.fromkeys(self.seeds))


def _in_full(given: Any) -> Any:
    """A study's data with its one `budget` as a list of them."""
    if not isinstance(given, dict) or "budget" not in given or "budgets" in given:
        return given
    others = {name: value for name, value in given.items() if name != "budget"}
    return {**others, "budgets": [given["budget"]]}


def read_plan(path: Path) -> StudyPlan:
    """A study from its file; CodesignError names the field that is wrong. Files that it names are looked for beside it."""
    if not path.is_file():
        raise CodesignError("no such file" if not path.exists() else "not a file", place=str(path))
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError, ValueError) as error:
        raise CodesignError(f"not a TOML file: {str(error)[:120]}", place=str(path)) from None
    data.setdefault("name", path.stem)
    plan = make_plan(data, str(path))
    beside = {kind: [_beside(path, name) for name in getattr(plan, kind)] for kind in ("models", "spaces")}
    return plan.model_copy(update=beside)


def make_plan(data: dict[str, Any], place: str = "") -> StudyPlan:
    """A study from plain data; CodesignError names the field that is wrong."""
    try:
        return StudyPlan.model_validate(data)
    except ValidationError as error:
        raise CodesignError(fault(error, StudyPlan, _in_full(data)), place=place) from None


def _beside(path: Path, name: str) -> str:
    near = path.parent / name
    return str(near) if not Path(name).is_absolute() and near.exists() else name
