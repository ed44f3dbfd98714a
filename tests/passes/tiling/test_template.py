"""Templates: one text per structure, which runs at any sizes and of which every kernel is an instance."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.core import Module
from codesign.ir.index import Bounds
from codesign.ir.interpreter import run_kernel
from codesign.ir.schedule import Schedule
from codesign.ir.structure import equal
from codesign.ir.template import Template, instantiate
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse, print_module
from codesign.ir.tiling.templates import template
from codesign.ir.verify import verify
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower
from tests.passes.tiling import groups

GROUPS = {
    "product": groups.gemm(96, 64, 200),
    "softmax": groups.softmax(24, 300),
    "layer norm": groups.layer_norm(16, 100),
    "arg-reduction": groups.reduction(20, 70, "argmax"),
    "convolution": groups.convolution(2, 8, 9, 16, 3, 1, 1),
    "window": groups.max_pool(2, 3, 11, 3, 2),
    "gather": groups.embedding(20, 30, 24),
    "pad": groups.padded(12, 20, 3),
    "attention": groups.attention(2, 32, 64, 16),
}
MACHINES = [load_machine("h100_sxm"), load_machine("maia100")]


def schedules(fusion: Fusion, count: int = 12) -> Iterator[Schedule]:
    for machine in MACHINES:
        offered = space(summarize(fusion), machine)
        batch = offered.batch(offered.sample(count, np.random.default_rng(5)))
        yield from (batch.row(row) for row in range(len(batch)))


@pytest.mark.parametrize("name", GROUPS)
def test_schedules_of_one_structure_are_instances_of_one_template(name: str) -> None:
    form = normalize(GROUPS[name])
    by_structure: dict[Hashable, tuple[Template, str]] = {}
    for schedule in schedules(form.fusion):
        made, sizes = template(form.fusion, schedule, outputs=form.outputs)
        text = print_module(Module(kernels={"kernel": made.kernel}))
        first, known = by_structure.setdefault(made.structure, (made, text))
        assert text == known
        kernel = lower(form.fusion, schedule, outputs=form.outputs)
        other = instantiate(first, sizes, schedule)
        assert equal(Module(kernels={"kernel": other}), Module(kernels={"kernel": kernel}))
        assert set(sizes) == set(made.symbols)


@pytest.mark.parametrize("name", GROUPS)
def test_a_template_is_tile_ir_like_any_other(name: str) -> None:
    form = normalize(GROUPS[name])
    arrays = groups.random_inputs(form.fusion, 3)
    for schedule in list(schedules(form.fusion, 2))[::2]:
        made, sizes = template(form.fusion, schedule, outputs=form.outputs)
        module = Module(kernels={"kernel": made.kernel})
        verify(module)
        assert equal(parse(print_module(module)), module)
        kernel = instantiate(made, sizes, schedule)
        verify(Module(kernels={"kernel": kernel}))
        wanted = groups.run_tiles(kernel, arrays)
        outputs = [np.zeros_like(array) for array in wanted]
        run_kernel(made.kernel, [*arrays, *outputs], sizes)
        for found, expected in zip(outputs, wanted, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_an_instance_lacks_is_named() -> None:
    made, sizes = template(groups.gemm(64, 64, 64), Schedule({"i": 16, "j": 16, "k": 16}), bounds=Bounds())
    with pytest.raises(KeyError, match="T_j"):
        instantiate(made, {name: size for name, size in sizes.items() if name != "T_j"}, Schedule())
    with pytest.raises(ValueError, match="T_i is not a constant"):
        _ = next(op for op in made.kernel.body.ops if op.results).result.type.shape
