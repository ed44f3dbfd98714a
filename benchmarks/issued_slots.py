"""Instructions that an element of generated code takes for a function, beside what the models count for it.

`python benchmarks/issued_slots.py [--target sm_80 sm_90 sm_100] [--json]`: kernels that do no more than load, one function and store are compiled
ahead of time, in tiles of two sizes; what the instructions of their SASS (`cuobjdump`, of Triton's package) differ by, over the elements of a thread
that the tiles differ by, is what an element takes, and less what it takes to load and add, the function. A loop over digits counts once, which is
enough for quotients below 2^39 (2^10 in float64). The routine of remainders of 64 bits counts for each call; that of quotients does not, which is
for subnormal numbers and skipped elsewhere. Compiled figures and counted slots stand beside each other; nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from codesign.backends.triton.aot import compile_aot, tool
from codesign.backends.triton.generated.expanded import further
from codesign.costmodel.gpu.slots import slots_of
from codesign.ir.analysis import slot_of
from codesign.ir.core import Block, Value
from codesign.ir.draws import number
from codesign.ir.dtypes import F32, F64, I32, I64, DType
from codesign.ir.index import index
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar, apply, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Kernel, Load, Map, Store
from codesign.ir.types import BufferType

Body = Callable[..., Scalar]
SIZES = 1024, 2048
"""Elements of the tiles, of four warps."""
SPECIAL = re.compile(r"MUFU|I2F|F2I|FRND|F2F|F2FP|I2FP")
DOUBLE = re.compile(r"D[A-Z]+|F2F\.F64")
VECTOR = re.compile(r"F[A-Z]+2?|H[A-Z]+2?")
OTHER = re.compile(r"LD|ST|BRA|EXIT|NOP|BSYNC|BSSY|BAR|WARPSYNC|CALL|RET|U[A-Z]+|S2|CS2|R2UR|SHFL|VOTE")


def body_of(function: str, dtype: DType) -> Body:
    """A function of two loaded values; a sum where there is none to name."""

    def whole(body: Scalar) -> Scalar:
        return apply("floor", body)

    bodies: dict[str, Body] = {
        "quotient": lambda a, b: apply("div", a, b),
        "quotient before a step": lambda a, b: whole(apply("div", a, b)),
        "quotient by a number": lambda a, b: apply("div", a, literal(0.3, dtype)),
        "quotient by a number before a step": lambda a, b: whole(apply("div", a, literal(0.3, dtype))),
        "reciprocal": lambda a, b: apply("reciprocal", a),
        "reciprocal before a step": lambda a, b: whole(apply("reciprocal", a)),
    }
    if function in bodies:
        return bodies[function]
    name, _, number = function.partition(" by ")
    known = None if not number else 8 if number == "a power of two" else 0.3 if dtype.is_float else 7
    return lambda a, b: apply(name, a, b if known is None else literal(known, dtype))


def kernel_of(name: str, body: Body, dtype: DType, size: int) -> Kernel:
    """`out[i] = body(x[i], y[i])` in one program; the body may be of the position alone."""
    axis = Axis("i", size)
    inputs = [Value(BufferType(dtype, (index(size),)), name) for name in ("x", "y")]
    loads = [Load(value, [axis], ["i"], name=f"l_{value.name}") for value in inputs]
    result = Map([axis], body(*(Read(load.result, ["i"]) for load in loads)), name="r")
    out = Value(BufferType(result.body.dtype, (index(size),)), "out")
    ops = [*loads, result, Store(result.result, out, [axis], ["i"])]
    return Kernel(name, [*inputs, out], 1, (), Block([], ops), Schedule(extras={"warps": 4}))


def instructions(kernel: Kernel, target: str) -> Counter[str]:
    """Instructions of the compiled kernel by the lanes that do them."""
    found = subprocess.run(
        [tool("cuobjdump"), "-sass", compile_aot(kernel, target).files["cubin"]],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z0-9][\w.]*)([^;]*);", found.stdout, re.M)
    text = {int(place, 16): (name, rest) for place, name, rest in lines}
    routines = {int(rest.split()[-1], 16) for name, rest in text.values() if name.startswith("CALL")}
    bodies: dict[int, list[str]] = {start: [] for start in routines}
    own: list[str] = []
    into = own
    for place, (name, _) in text.items():
        into = bodies.get(place, into)
        into.append(name)
    for name, rest in text.values():
        body = bodies[int(rest.split()[-1], 16)] if name.startswith("CALL") else []
        if any(one.startswith("I2F.U64") for one in body):
            own += body
    return Counter(map(_lanes_of, own))


def _lanes_of(name: str) -> str:
    kinds = (("special", SPECIAL), ("other", OTHER), ("double", DOUBLE), ("vector", VECTOR))
    return next((kind for kind, pattern in kinds if pattern.match(name)), "integer")


def taken(body: Body, dtype: DType, target: str) -> dict[str, float]:
    """Instructions of an element by lanes, those of its loads and its store included."""
    small, large = (instructions(kernel_of(f"slots_{size}", body, dtype, size), target) for size in SIZES)
    elements = (SIZES[1] - SIZES[0]) / 128
    return {kind: (large[kind] - small[kind]) / elements for kind in sorted(small | large)}


def counted(body: Body, dtype: DType) -> dict[str, float]:
    """Slots of an element by lanes, as the models count them."""
    kernel = kernel_of("counted", body, dtype, SIZES[0])
    found: dict[str, float] = {}
    (work,) = (op for op in kernel.body.walk() if isinstance(op, Map))
    for node in work.body.walk():
        if isinstance(node, Apply):
            unit, kind, cost = slot_of(node)
            if unit != "free":
                name, cost = slots_of(unit, kind.name, cost)
                found[name] = found.get(name, 0.0) + cost
    for one in further(kernel).get(work, ()):  # a tile of so many elements has pairs
        for name, cost in one.slots.items():
            found[name] = found.get(name, 0.0) + cost * (0.5 if one.pairs else 1.0)
    return found


def drawn(distribution: str) -> Body:
    """A number of the element's place, of a seed that is data."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        seed = apply("add", literal(1, I64), IndexValue(index(0)))
        place, shape = [index("i")], [index(1 << 20)]
        return apply("add", a, number(distribution, F32, seed, 0, place, shape))  # type: ignore[arg-type]

    return body


CASES: Mapping[str, tuple[Body, DType]] = {
    **{
        f"{function} {dtype}": (body_of(function, dtype), dtype)
        for dtype in (F32, F64)
        for function in (
            "quotient",
            "quotient before a step",
            "quotient by a number",
            "quotient by a number before a step",
            "reciprocal",
            "reciprocal before a step",
            "truncdiv",
            "fmod",
            "mod",
            "floordiv",
            "truncdiv by a number",
            "fmod by a number",
            "mod by a number",
            "floordiv by a number",
        )
    },
    **{
        f"{function}{divisor} {dtype}": (body_of(function + divisor, dtype), dtype)
        for dtype in (I32, I64)
        for function in ("truncdiv", "fmod", "mod", "floordiv")
        for divisor in ("", " by a number", " by a power of two")
    },
    **{f"drawn {distribution}": (drawn(distribution), F32) for distribution in ("uniform", "normal")},
}


def rows(targets: Sequence[str]) -> list[dict[str, object]]:
    """For each target and function: instructions beyond those of a sum, and slots beyond those of a sum."""
    found: list[dict[str, object]] = []
    for target in targets:
        for name, (body, dtype) in CASES.items():
            base = taken(lambda a, b: apply("add", a, b), dtype, target)
            mine = taken(body, dtype, target)
            difference = {kind: round(mine.get(kind, 0.0) - base.get(kind, 0.0), 2) for kind in {*mine, *base}}
            slots = {kind: round(cost, 2) for kind, cost in sorted(counted(body, dtype).items())}
            found.append({"target": target, "function": name, "compiled": difference, "counted": slots})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["sm_90"])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = rows(given.target)
    if given.json:
        json.dump(found, sys.stdout, indent=2)
        return
    for row in found:
        compiled, slots = row["compiled"], row["counted"]
        assert isinstance(compiled, dict)
        assert isinstance(slots, dict)
        print(
            f"{row['target']:7} {row['function']:42} compiled {sum(compiled.values()):6.1f} {compiled}  counted {sum(slots.values()):6.1f} {slots}"
        )


if __name__ == "__main__":
    main()
