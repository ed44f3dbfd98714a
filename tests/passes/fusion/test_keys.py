"""Keys of groups: equal for equal programs only, whatever they are called, in every process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

from codesign.ir.core import Module, Value
from codesign.ir.dtypes import BOOL, F16, F32, F64, I32, I64, DType
from codesign.ir.index import index
from codesign.ir.location import UNKNOWN
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply
from codesign.ir.structure import structural_hash
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.fusion.group import Group
from codesign.passes.fusion.keys import group_key
from tests.passes import models


def test_keys_ignore_names_and_see_structure() -> None:
    def keys(module: Module) -> list[str]:
        graph = GroupGraph(module.main.body, module.bounds())
        return [group_key(node.group) for node in graph.groups() if node.group]

    a, b = keys(models.softmax(6, 10)), keys(models.softmax(6, 10))
    assert a == b
    assert len(set(a)) == len(a)
    assert not set(a) & set(keys(models.softmax(6, 11)))


def test_keys_tell_apart_what_python_hashes_alike() -> None:
    """hash(-1) is hash(-2); 0.0 and -0.0, and 1, 1.0 and True, are equal to Python. NaN is one key."""

    def group(body: Callable[[Scalar], Scalar], offset: int = 0) -> Group:
        i = Dim("i", index(8))
        x = Value(tensor(F32, 32), "x")
        compute = Compute([i], body(Read(x, [index("i") + offset + 4])), name="y")
        return Group((compute,), {compute.result: compute.result}, UNKNOWN)

    def added(value: float) -> Group:
        return group(lambda x: apply("add", x, Literal(value, F32)))

    def as_float(value: float, dtype: DType) -> Group:
        return group(lambda x: apply("add", x, Apply("cast", (Literal(value, dtype),), F32)))

    def indexed(factor: int, constant: int) -> Group:
        return group(lambda x: apply("add", x, IndexValue(index("i") * factor + constant, F32)))

    distinct = [
        *(added(value) for value in (-1.0, -2.0, 0.0, -0.0, 1.0, math.nan, math.inf, -math.inf)),
        *(as_float(value, I32) for value in (-1, -2)),
        *(as_float(1, dtype) for dtype in (I32, I64, BOOL, F16)),
        *(as_float(value, F64) for value in (0.0, -0.0)),
        *(indexed(factor, constant) for factor in (-1, -2, 1) for constant in (-1, -2, 0)),
        *(group(lambda x: x, offset) for offset in (-1, -2, 0)),
    ]
    for key in (group_key, lambda one: structural_hash(one.fusion())):
        assert len({key(one) for one in distinct}) == len(distinct)
    assert group_key(added(math.nan)) == group_key(added(-math.nan))
    assert group_key(added(-1.0)) == group_key(added(-1.0))


def test_keys_are_the_same_in_every_process() -> None:
    """A key is no Python hash of strings, which differ from run to run."""
    program = (
        "from tests.passes import models; from codesign.passes.fusion.graph import GroupGraph;"
        "from codesign.passes.fusion.keys import group_key;"
        "m = models.softmax(6, 10); g = GroupGraph(m.main.body, m.bounds());"
        "print([group_key(n.group) for n in g.groups() if n.group])"
    )

    def keys(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert keys("1") == keys("2") != ""
