"""From fused groups to kernels: each group is tuned and tiled, and groups of the same structure share one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codesign.ir.analysis import structural_hash
from codesign.ir.core import Block, Module, Op, Value, tensor_type
from codesign.ir.errors import ScheduleError
from codesign.ir.index import Bounds
from codesign.ir.location import Location, merge
from codesign.ir.schedule import NOTHING, Schedule
from codesign.ir.tensor import Compute, Fusion, Launch
from codesign.ir.tile import Kernel
from codesign.passes.knobs.cut import cut_of, said_of
from codesign.passes.naming import kernel_name
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.schedule.phases import check_joins
from codesign.passes.schedule.replay import Schedules
from codesign.passes.schedule.tuner import Tuned, Tuner
from codesign.passes.tile import lower
from codesign.passes.tiling.cutting import WHOLE, memory


@dataclass
class KernelInfo:
    """One kernel of a module: the group it does, how it was tuned, and everywhere it is launched.

    `fusion`: the first group of this structure, as it was before normalisation. `inputs`: for each input buffer of the kernel, its
    position in `fusion.uses()`. `structure`: the structural hash of `fusion`. `replayed`: its schedule was given. `whole`: of the first kernel of
    a group that is cut, the structure of the group and what a schedule says of it.
    `count`: launches in a run of the model, those of a branch by half. `locations`: of each launch in the text.
    """

    kernel: Kernel
    fusion: Fusion
    normalized: Normalized
    tuned: Tuned
    inputs: tuple[int, ...] = ()
    structure: str = ""
    replayed: bool = False
    whole: tuple[str, Schedule] | None = None
    count: int | float = 0
    locations: list[Location] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    @property
    def launches(self) -> int | float:
        """Launches of its own in a run of the model: none where it is joined to the kernel before it."""
        return 0 if self.tuned.schedule.extras.get("joined") else self.count

    @property
    def operators(self) -> tuple[str, ...]:
        """The framework's operators that it does, in order."""
        return tuple(dict.fromkeys(leaf.operator for leaf in self._leaves() if leaf.origin))

    @property
    def places(self) -> tuple[str, ...]:
        """The lines and modules that they are from."""
        return tuple(dict.fromkeys(leaf.place for leaf in self._leaves() if leaf.file or leaf.module))

    def _leaves(self) -> list[Location]:
        return [leaf for compute in self.fusion.computes for leaf in compute.location.leaves()]


def tile_module(
    module: Module,
    tuner: Tuner,
    schedules: Mapping[str, Schedule] | None = None,
    remarks: list[str] | None = None,
    *,
    of_others: bool = False,
) -> dict[str, KernelInfo]:
    """Replace every group of the module's functions by a launch of a tiled kernel, in place; what each kernel is, by name.

    `schedules` replays given schedules instead of the tuner's: for kernels of the structure that a schedule was made for, where `Schedules`
    tells it, else for kernels of these names. `remarks` gets the ones that are not used. Raises ScheduleError when a group has no
    schedule that fits the tuner's machine, when a replayed one does not fit or apply, and for a name that no kernel has, unless they may
    be `of_others`: other modules.
    """
    given = schedules if isinstance(schedules, Schedules) else Schedules(schedules or {})
    lowering = _Lowering(module, tuner, given)
    for function in module.functions.values():
        lowering.block(function.body, 1.0)
    known_names = {*lowering.kernels, *lowering.replayed, *given.structures}
    unknown = [name for name in given if name not in known_names]
    if unknown and not of_others:
        known = ", ".join(lowering.kernels)
        raise ScheduleError(
            f"a schedule is given for @{unknown[0]}, which is not a kernel here", hint=f"kernels: {known}"
        )
    unused = [name for name in given if name not in lowering.replayed and name in given.structures]
    if unused and remarks is not None and not of_others:
        names = ", ".join(f"@{name}" for name in unused)
        remarks.append(f"schedules that are not used, as no kernel here has the structure they were made for: {names}")
    return lowering.kernels


def schedules_of(kernels: Mapping[str, KernelInfo]) -> Schedules:
    """What kernels were made with, and how the groups that are two of them are cut, to be kept and given again."""
    made = {name: info.tuned.schedule for name, info in kernels.items()}
    structures = {name: info.structure for name, info in kernels.items()}
    for name, info in kernels.items():
        if info.whole is not None:
            entry = f"{name}_whole"
            structures[entry], made[entry] = info.whole
    return Schedules(made, structures)


def whole(count: float) -> int | float:
    """A count as an integer where it is one."""
    return int(count) if count == int(count) else count


class _Lowering:
    def __init__(self, module: Module, tuner: Tuner, schedules: Schedules) -> None:
        self.module = module
        self.schedules = schedules
        self.replayed: set[str] = set()
        self.tuner = tuner
        self.bounds: Bounds = module.bounds()
        self.kernels: dict[str, KernelInfo] = {}
        self._by_structure: dict[str, str] = {}
        self.runs = 1.0

    def block(self, block: Block, runs: float) -> None:
        """Lower a block that one run of the model goes through so many times."""
        mapping: dict[Value, Value] = {}
        ops: list[Op] = []
        for op in block.ops:
            op.replace(mapping)
            if isinstance(op, Compute):
                op = _alone(op, mapping)
            if isinstance(op, Fusion):
                self.runs = runs
                launches, results = self.launches(op)
                mapping.update(zip(op.results, results, strict=True))
                ops.extend(launches)
            else:
                for inner, times in zip(op.blocks(), op.runs(self.tuner.sizes), strict=True):
                    self.block(inner, runs * times)
                ops.append(op)
        block.ops = ops
        block.yields = tuple(mapping.get(value, value) for value in block.yields)

    def launches(self, fusion: Fusion) -> tuple[list[Op], Sequence[Value]]:
        """What does a group, and its results: one launch, or two when it is cut, with the memory that both write into."""
        key = structural_hash(fusion)
        tuned = self._as_given(fusion, key) or self.tuner.tune(fusion, key=key)
        if not tuned.phases:
            launched = self.launch(fusion, tuned, key)
            return [launched], launched.results
        partial, combination = tuned.cutting.halves(fusion)
        partial.label, combination.label = f"{kernel_name(fusion)}_parts", kernel_name(fusion)
        first, second = tuned.phases
        launched = self.launch(partial, first.tuned, structural_hash(partial), first.half.common)
        combination.replace(dict(zip(partial.results, launched.results, strict=True)))
        self.kernels[launched.kernel].whole = key, said_of(tuned.cutting, fusion)
        combined = self.launch(combination, second.tuned, structural_hash(combination), second.half.common)
        results = tuned.cutting.results(fusion, launched.results, combined.results)
        return [*memory(partial), launched, combined], results

    def _as_given(self, fusion: Fusion, structure: str) -> Tuned | None:
        """The group cut, or not, as a given schedule of it says; None where none is given."""
        name = f"{kernel_name(fusion)}_parts_whole"
        entry = self.schedules.named_for(name, structure)
        if entry is None:
            return None
        try:
            cutting = cut_of(self.schedules[entry], fusion)
        except ScheduleError as error:
            split = [dim for dim, parts in self.schedules[entry].split.items() if parts > 1]
            mine = bool(split) and set(split) <= set(fusion.dims())
            if mine or entry == name or entry not in self.schedules.structures:
                raise ScheduleError(f"@{entry}: {error.message}", hint=error.hint) from None
            return None  # of the same structure, but its dimensions have other names
        if cutting == WHOLE:
            return self.tuner.tune(fusion, split=False)
        self.replayed.add(entry)
        return self.tuner.cut(fusion, cutting)

    def launch(self, fusion: Fusion, tuned: Tuned, key: str, common: Schedule = NOTHING) -> Launch:
        """The launch that does a group of a structural hash; its kernel is made when no group before had the same, and schedules with as much
        in `common`."""
        key = key if common == NOTHING else f"{key}_{common.hash}"
        name = self._by_structure.get(key)
        given = fusion.uses()
        if name is None:
            name = self._name(fusion, key)
            normalized = normalize(fusion, self.bounds)
            replayed = self._replay(normalized, name, key, common)
            tuned = replayed or self.tuner.of_equal(tuned, normalized, name)
            kernel = lower(normalized.fusion, tuned.schedule, name=name, bounds=self.bounds, outputs=normalized.outputs)
            kernel.location = _location(fusion)
            self._by_structure[key] = name
            self.module.kernels[name] = kernel
            inputs = tuple(given.index(value) for value in normalized.fusion.uses())
            self.kernels[name] = KernelInfo(kernel, fusion, normalized, tuned, inputs, key, replayed is not None)
        info = self.kernels[name]
        info.count = whole(info.count + self.runs)
        info.locations.append(_location(fusion))
        info.labels.append(fusion.label)
        return Launch(
            name,
            [given[position] for position in info.inputs],
            [tensor_type(value) for value in fusion.results],
            names=[value.name for value in fusion.results],
            location=_location(fusion),
        )

    def _replay(self, normalized: Normalized, name: str, structure: str, common: Schedule) -> Tuned | None:
        """The given schedule for a kernel, if there is one."""
        entry = self.schedules.named_for(name, structure)
        if entry is None:
            return None
        check_joins(self.schedules[entry], common, name)
        try:
            tuned = self.tuner.predict(normalized, self.schedules[entry], name)
        except ScheduleError as error:
            if entry == name:
                raise ScheduleError(
                    error.message, place=f"schedule of {error.place or name}", hint=error.hint
                ) from error
            return None  # of the same structure, but its dimensions have other names
        self.replayed.add(entry)
        return tuned

    def _name(self, fusion: Fusion, structure: str) -> str:
        """The group's own name, with the beginning of its structural hash where another kernel has that."""
        base = name = kernel_name(fusion)
        digits = 4
        while name in self.module.kernels:
            name, digits = f"{base}_{structure[:digits]}", digits + 1
        return name


def _alone(compute: Compute, mapping: dict[Value, Value]) -> Fusion:
    """A compute outside any group, as a group of its own."""
    fusion = Fusion(Block([], [compute], [compute.result]), names=[compute.result.name], location=compute.location)
    mapping[compute.result] = fusion.result
    return fusion


def _location(fusion: Fusion) -> Location:
    return fusion.location if fusion.location.known else merge(compute.location for compute in fusion.computes)
