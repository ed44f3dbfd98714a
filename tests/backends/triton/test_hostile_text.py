"""Text from outside in every field of a module: generated files parse, to what harmless text gives."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from codesign.backends.triton.emit import emission
from codesign.backends.triton.names import Namer, file_names
from codesign.backends.triton.quoting import comment, docstring
from codesign.backends.triton.runner import write_runner
from codesign.ir.core import Block, Function, Module, Op, Symbol, Value
from codesign.ir.dtypes import F32
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import index
from codesign.ir.location import Location
from codesign.ir.scalar import Read, apply
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Call, Constant, Launch
from codesign.ir.tile import Axis, GridDim, Guard, Kernel, Load, Map, Store
from codesign.ir.types import BufferType, tensor

HOSTILE = [
    'a"""\nraise SystemExit(7)\n"""b',
    "a'''\nraise SystemExit(7)\n'''",
    'a"',
    "a\\",
    'a\\"""',
    "a\nraise SystemExit(7)",
    "a\rraise SystemExit(7)",
    "a\x0craise SystemExit(7)",
    "a\u2028raise SystemExit(7)",
    "a\u2029raise SystemExit(7)\x85raise SystemExit(8)",
    "a\x00b",
    "a\u202eb\u2066c",
    "\ufb01le \uff41\u212a",
    "a\udc80b",
    "a, b, c, d " * 6,
    "../../../tmp/escaped",
    "/etc/passwd",
    "import os; os",
    "{x} %s %(y)d",
    "class",
    "tl",
    "__import__",
    "_floordiv",
    "con\\..\\nul:",
    " ",
]


def module(text: Callable[[str], str]) -> Module:
    """A module of two kernels and an external call, `text(role)` in each place that takes any text."""
    n, i, d = text("symbol"), text("axis"), text("dim")
    place = Location(text("file"), 3, module=text("module"), origin=text("origin"))
    kernels = {}
    for name in (text("kernel"), text("kernel").upper()):
        x, out = (Value(BufferType(F32, (index(n), index(8))), text(role)) for role in ("input", "output"))
        axis, guard = Axis(i, 16), Guard(index(d) * 16 + index(i), None, index(n))
        load = Load(x, [axis], [index(d) * 16 + index(i), index(0)], guards=[guard], name=text("load"))
        body = apply("add", Read(load.result, [i]), Read(load.result, [i]))
        made = Map([axis], body, name=text("map"))
        store = Store(made.result, out, [axis], [index(d) * 16 + index(i), index(0)], guards=[guard])
        for op in (load, made, store):
            op.location = place
        grid = (GridDim(d, (index(n) + 15) // 16),)
        kernels[name] = Kernel(
            name,
            [x, out],
            1,
            grid,
            Block([], [load, made, store]),
            Schedule(),
            symbols=(n,),
            notes={text("key"): text("note")},
        )
    kind = tensor(F32, n, 8)
    x = Value(kind, text("argument"))
    weight = Constant(text("weight"), tensor(F32, 8), name=text("constant"))
    first, second = kernels
    one = Launch(first, [x], [kind], names=[text("first")])
    two = Launch(second, list(one.results), [kind], names=[text("second")])
    call = Call(
        "aten.add.Tensor",
        [two.results[0], weight.result],
        [kind],
        attributes={"arg0": "%0", "arg1": "%1", "arg2": text("argument of a call")},
    )
    for item in cast(list[Op], [weight, one, two, call]):
        item.location = place
    main = Function("main", Block([x], [weight, one, two, call], list(call.results)))
    return Module(text("name"), {n: Symbol(n, 1, 64)}, {"main": main}, kernels=kernels)


def shape(source: str) -> object:
    """The tree of a file without the texts of docstrings, string constants and names."""

    class Plain(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Constant("text") if isinstance(node.value, str) else node

        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Name("name", node.ctx)

        def visit_arg(self, node: ast.arg) -> ast.AST:
            return ast.arg("name")

        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            self.generic_visit(node)
            node.attr = "launch" if node.attr.startswith("launch_") else node.attr
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            self.generic_visit(node)
            node.name = "name"
            return node

    return ast.dump(Plain().visit(ast.parse(source)))


def written(text: Callable[[str], str], folder: Path) -> dict[str, object]:
    """Files of a runner by order, as trees; nothing lies outside of the folder."""
    made = folder / "made"
    write_runner(module(text), None, made, target=text("target"), input_names=[text("given")])
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert sorted(path.parent.relative_to(folder).as_posix() for path in files) == [
        "made",
        "made/kernels",
        "made/kernels",
    ]
    assert all(path.name.isascii() and " " not in path.name for path in files)
    return {path.parent.name + str(place): shape(path.read_text("utf-8")) for place, path in enumerate(files)}


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text)[:24] for text in HOSTILE])
def test_files_are_those_of_harmless_text(text: str, tmp_path: Path) -> None:
    harmless = written(lambda role: f"plain_{role.replace(' ', '_')}", tmp_path / "harmless")
    hostile = written(lambda role: f"{text}{role}", tmp_path / "hostile")
    assert sorted(hostile.values(), key=str) == sorted(harmless.values(), key=str)


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text)[:24] for text in HOSTILE])
def test_quoting(text: str) -> None:
    assert ast.dump(ast.parse(f"x = 1  # {comment(text)}\ny = 2")) == ast.dump(ast.parse("x = 1\ny = 2"))
    tree = ast.parse(f'"""{docstring(text)}"""')
    assert len(tree.body) == 1
    assert isinstance(ast.literal_eval(tree.body[0].value), str)  # type: ignore[attr-defined]
    name = Namer().fresh(text)
    assert name.isidentifier()
    assert name.isascii()
    assert not name.startswith("_")


def test_names_of_files_are_safe_and_different() -> None:
    names = [
        *HOSTILE,
        "softmax",
        "Softmax",
        "soft max",
        "soft_max",
        "a/b",
        "a_b",
        "a" * 400,
        "a" * 401,
        "_x",
        "x_",
        "x",
        "",
    ]
    stems = file_names(names)
    assert stems["softmax"] == "softmax" or stems["Softmax"] == "Softmax"
    assert len({stem.casefold() for stem in stems.values()}) == len(set(names))
    assert all(len(stem) < 200 and stem.isascii() and stem.replace("_", "").isalnum() for stem in stems.values())
    assert stems == file_names(reversed(names))


@pytest.mark.parametrize(
    ("target", "attributes"),
    [
        ("load_library", {"arg0": "x.so"}),
        ("aten.add.Tensor(x); print", {}),
        ("aten.__class__.__base__", {}),
        ("aten.add.Tensor", {"out=1)or(": 1}),
        ("aten.add.Tensor", {"arg0": "torch.hub.load('x')"}),
        ("aten.add.Tensor", {"arg0": "torch.x, os.system('x')"}),
    ],
)
def test_what_would_be_code_in_a_call_is_refused(target: str, attributes: dict[str, object], tmp_path: Path) -> None:
    kind = tensor(F32, 4)
    x = Value(kind, "x")
    call = Call(target, [x], [kind], attributes=attributes)
    made = Module("m", {}, {"main": Function("main", Block([x], [call], list(call.results)))})
    with pytest.raises(UnsupportedError, match="generated Python"):
        write_runner(made, None, tmp_path)


def test_text_of_symbols_goes_by_its_safe_name() -> None:
    """A symbol is no text to be searched for: `n` inside of `min` stays."""
    x, out = (Value(BufferType(F32, (index("n"), index(8))), name) for name in ("x", "n"))
    axis = Axis("i", 16)
    load = Load(x, [axis], [index("i"), index(0)], name="v")
    grid = (GridDim("d", (index("n") + 15) // 16),)
    store = Store(load.result, out, [axis], [index("i"), index(0)])
    source = emission(Kernel("n", [x, out], 1, grid, Block([], [load, store]), Schedule(), symbols=("n",))).source
    ast.parse(source)
    assert "grid = (((n_1 + 15) // 16),)" in source
    assert "def launch(x, n_2, n_1):" in source
