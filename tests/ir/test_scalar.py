"""Scalar expressions: folding, substitution, sharing, copies."""

import copy
import pickle
import subprocess
import sys

import pytest

from codesign.ir.core import Value
from codesign.ir.dtypes import BF16, BOOL, DTYPES, F16, F32, I32, I64
from codesign.ir.errors import VerificationError
from codesign.ir.index import FloorDiv, Index, index
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.types import tensor

X = Value(tensor(F32, 8, 8), "x")
IDS = Value(tensor(I64, 8), "ids")
READ = Read(X, ["i", index("j") // 2])


def test_dtypes_follow_the_table() -> None:
    assert apply("lt", READ, literal(1.0)).dtype is BOOL
    assert select(apply("lt", READ, READ), READ, READ).dtype is F32
    with pytest.raises(VerificationError, match="one dtype"):
        apply("add", READ, literal(1))
    with pytest.raises(VerificationError, match="needs a bool condition"):
        select(READ, READ, READ)
    with pytest.raises(VerificationError, match="exp does not take i64"):
        apply("exp", literal(1))


@pytest.mark.parametrize("counted", range(20))
def test_numbers_that_tell_dims_apart_do_not_order_what_is_read_from_data(counted: int) -> None:
    """As fusion counts them: a group of the same structure reads its tensors in the same order, however many were made before it."""
    rows, columns = Value(tensor(I32, 8, 8), "rows"), Value(tensor(I32, 8), "columns")

    def sources(first: int, second: int) -> list[str]:
        i, j = f"i.{first:08d}", f"i.{second:08d}"
        row, column = (cast(read, I64).as_index() for read in (Read(rows, [i, j]), Read(columns, [j])))
        inner = cast(Read(rows, [row, column + 1]), I64).as_index()
        read = Read(Value(tensor(F32, 64), "x"), [row * 8 + column + inner * 2])
        return [each.source.name for each in read.reads()]

    assert sources(counted, 3 * counted + 7) == sources(0, 1) == sources(901, 900)


def test_casts_of_literals_fold_only_when_exact() -> None:
    assert cast(literal(2.0), DTYPES["f64"]) == Literal(2.0, DTYPES["f64"])
    assert isinstance(cast(literal(0.1), F16), Apply)
    assert cast(READ, F32) is READ


def test_equality_is_by_structure() -> None:
    again = Read(X, ["i", index("j") // 2])
    assert again == READ
    assert hash(again) == hash(READ)
    assert Read(X, ["j", "i"]) != READ
    assert Literal(0.0, F32) != Literal(-0.0, F32)
    assert Literal(float("nan"), F32) == Literal(float("nan"), F32)
    assert Literal(1, I32) != Literal(1, I64)


def test_substitution_reaches_gathers_and_replaces_all_at_once() -> None:
    gather = Read(X, [Read(IDS, ["i"]).as_index(), "j"])
    moved = gather.substitute({"i": "j", "j": index("i") * 2})
    assert moved == Read(X, [Read(IDS, ["j"]).as_index(), index("i") * 2])
    assert gather.variables() == {"i", "j"}
    assert [read.source for read in gather.reads()] == [IDS, X]
    other = Value(tensor(I64, 8), "other")
    assert gather.replace_sources({IDS: other}).reads()[0].source is other


def test_integer_arithmetic_on_indices_becomes_an_index() -> None:
    sum_ = apply("add", apply("mul", IndexValue("i"), literal(3)), literal(1))
    assert sum_.as_index() == index("i") * 3 + 1
    data = apply("add", Read(IDS, ["i"]), literal(1)).as_index()
    assert data - 1 == Read(IDS, ["i"]).as_index()


def test_sharing_does_not_multiply_work() -> None:
    a: Scalar = READ
    b: Scalar = Read(X, ["i", index("j") // 2])
    for _ in range(200):
        a, b = apply("add", a, a), apply("add", b, b)
    assert a == b
    assert a.digest() == b.digest()
    assert len(list(a.walk())) == 201
    assert a.substitute({"i": "k"}) != a
    assert len(str(a)) < 10_000


def test_copies_and_pickles_are_equal() -> None:
    body = apply("mul", READ, cast(literal(3), F32))
    assert copy.deepcopy(body.children()[1]) == body.children()[1]
    expression = (index("i") * "S" + 3) // 4 % 5
    loaded = pickle.loads(pickle.dumps(expression))
    assert loaded == expression
    assert hash(loaded) == hash(expression)
    assert pickle.loads(pickle.dumps(BF16)) is BF16


def test_pickles_work_in_another_process() -> None:
    """Hashes of strings differ there."""
    expression = Index.atom(FloorDiv(index("i"), index("S")))
    script = (
        "import pickle, sys; from codesign.ir.index import index; from codesign.ir.scalar import IndexValue\n"
        "e, s = pickle.loads(sys.stdin.buffer.read()); assert e == index('i') // 'S', e; assert s == IndexValue(e)"
    )
    data = pickle.dumps((expression, IndexValue(expression)))
    subprocess.run([sys.executable, "-c", script], input=data, check=True, timeout=60)
