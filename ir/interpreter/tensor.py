"""Runs the tensor level: each op's reference meaning, vectorised over its whole domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.ir import tensor
from codesign.ir.core import Block, Module, Op, Value, tensor_type
from codesign.ir.data_sizes import made_sizes
from codesign.ir.dtypes import DType
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index
from codesign.ir.interpreter.draws import draw
from codesign.ir.interpreter.reduction import evaluate_domain, scan_array
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.interpreter.symbols import bind_symbols
from codesign.ir.interpreter.tile import run_kernel, with_outputs
from codesign.ir.numerics import Array, combine_at, convert, held
from codesign.ir.tile import Kernel
from codesign.ir.writes import Combine, Write

External = Callable[[tensor.Call, Sequence[Array]], Any]
"""Runs a `call` op: gets the op and its input arrays, returns one array or a sequence of them."""

Launcher = Callable[[Kernel, Sequence[Array], Mapping[str, int]], Sequence[Array]]
"""Runs a kernel somewhere else than in this interpreter: gets the kernel, its inputs and the sizes, returns its outputs."""


@dataclass
class Context:
    """What a run needs beside values: sizes of symbols, the module (constants, kernels), and routines for `call` ops."""

    symbols: dict[str, int] = field(default_factory=dict)
    module: Module = field(default_factory=Module)
    externals: Mapping[str, External] = field(default_factory=dict)
    launcher: Launcher | None = None
    made: Mapping[str, tensor.Call] = field(default_factory=dict)
    """Sizes that data decides, which are known when the call that makes them has run."""


def evaluate(
    module: Module,
    inputs: Sequence[Any],
    function: str | None = None,
    symbols: Mapping[str, int] | None = None,
    externals: Mapping[str, External] | None = None,
    launcher: Launcher | None = None,
) -> list[Array]:
    """The results of a function of the module for given inputs.

    `function`: its name (the main one when not given). Size symbols are bound from the inputs' shapes; `symbols`
    gives those that no shape shows; sizes that data decides are what the data makes them. `externals`: what runs each
    `call` target. `launcher`: what runs kernels (their tile-level meaning when not given). Arrays of formats that NumPy
    lacks are float32.
    """
    target = module.main if function is None else module.functions[function]
    if len(inputs) != len(target.args):
        raise EvaluationError(f"@{target.name} takes {len(target.args)} inputs, got {len(inputs)}")
    arrays = [held(array, value.type.dtype) for array, value in zip(inputs, target.args, strict=True)]
    made = made_sizes(target)
    known = {name: size for name, size in (symbols or {}).items() if name not in made}
    bound = bind_symbols(((v.name, v.shape, a.shape) for v, a in zip(target.args, arrays, strict=True)), known)
    for symbol in module.symbols.values():
        size = bound.get(symbol.name)
        if size is not None and (size < symbol.low or (symbol.high is not None and size > symbol.high)):
            raise EvaluationError(f"{symbol.name} = {size} is outside its range {symbol.low}..{symbol.high or ''}")
    context = Context(bound, module, externals or {}, launcher, made)
    env = dict(zip(target.args, arrays, strict=True))
    run_block(target.body, env, context, release=True)
    return [env[value] for value in target.results]


def evaluate_block(
    ops: Iterable[Op],
    env: dict[Value, Array],
    symbols: Mapping[str, int] | None = None,
    module: Module | None = None,
    externals: Mapping[str, External] | None = None,
) -> dict[Value, Array]:
    """Run ops in order; their results are added to `env`, which is also returned."""
    context = Context(dict(symbols or {}), module or Module(), externals or {})
    for op in ops:
        run_op(op, env, context)
    return env


def run_block(block: Block, env: dict[Value, Array], context: Context, release: bool = False) -> list[Array]:
    """Run a block over values in `env`; returns what it yields. `release` forgets values after their last use."""
    last: dict[Value, int] = {}
    if release:
        last = {value: position for position, op in enumerate(block.ops) for value in op.uses()}
    kept = set(block.yields)
    dead: dict[int, list[Value]] = {}
    for value, position in last.items():
        if value not in kept:
            dead.setdefault(position, []).append(value)
    for position, op in enumerate(block.ops):
        run_op(op, env, context)
        for value in dead.get(position, ()):
            env.pop(value, None)
        if release:
            for value in op.results:
                if value not in last and value not in kept:
                    env.pop(value, None)
    return [env[value] for value in block.yields]


def run_op(op: Op, env: dict[Value, Array], context: Context) -> None:
    """Run one op, adding its results to `env`."""
    rule = _RULES.get(type(op))
    if rule is None:
        raise EvaluationError(f"the interpreter has no rule for {op.opcode!r}", place=op.location)
    try:
        results = rule(op, env, context)
    except EvaluationError as error:
        if error.place is None and op.location.known:
            raise EvaluationError(error.message, place=op.location, hint=error.hint) from error
        raise
    for value, array in zip(op.results, results, strict=True):
        expected = tuple(_size(size, context) for size in value.shape)
        if array.shape != expected:
            raise EvaluationError(
                f"%{value.name} of {op.opcode} has shape {list(array.shape)}, its type says {list(expected)}",
                place=op.location,
            )
        env[value] = array


def _size(size: Index, context: Context) -> int:
    try:
        return int(size.evaluate(context.symbols))
    except KeyError as error:
        raise EvaluationError(f"the size symbol {error.args[0]!r} is not bound", hint="give it by symbols=") from error


def _spans(dims: Iterable[tensor.Dim], context: Context) -> list[Span]:
    return [Span(dim.name, 0, _size(dim.extent, context)) for dim in dims]


def _compute(op: tensor.Compute, env: dict[Value, Array], context: Context) -> list[Array]:
    value = evaluate_domain(
        op.body,
        _spans(op.domain, context),
        len(op.reductions),
        op.monoid,
        op.accumulate,
        context.symbols,
        env,
        op.location,
    )
    result = convert(value, op.dtype)
    return [result if result.flags.owndata and result.flags.writeable else np.array(result)]


def _constant(op: tensor.Constant, env: dict[Value, Array], context: Context) -> list[Array]:
    data = context.module.constants.get(op.constant)
    if data is None:
        raise EvaluationError(
            f"constant {op.constant!r} has no data", place=op.location, hint="a model on the meta device can't be run"
        )
    return [held(np.asarray(data), op.result.type.dtype)]


def _empty(op: tensor.Empty, env: dict[Value, Array], context: Context) -> list[Array]:
    return [np.zeros([_size(size, context) for size in op.result.shape], op.result.type.dtype.numpy)]


def _fusion(op: tensor.Fusion, env: dict[Value, Array], context: Context) -> list[Array]:
    results = run_block(op.body, dict(env), context)
    for position, write in op.writes.items():
        results[position] = _written(op, write, op.body.yields[position], results[position], env, context)
    for position, shape in op.shapes.items():
        results[position] = results[position].reshape([_size(size, context) for size in shape])
    return results


def _written(
    op: tensor.Fusion, write: Write, value: Value, new: Array, env: dict[Value, Array], context: Context
) -> Array:
    """A copy of what is written into, with the new elements in it."""
    assert isinstance(value.owner, tensor.Compute)
    domain = Domain(_spans(value.owner.dims, context), context.symbols)
    result = np.array(env[write.base])
    chosen, target = _targets(write.at, Evaluator(domain, env, op.location), domain.shape, result.shape)
    if write.within and not chosen.all():
        raise EvaluationError(f"an index lies outside of %{write.base.name}", place=op.location)
    return _combined(write.combine, result, target, new.reshape(-1)[chosen], tensor_type(write.base).dtype)


def _combined(combine: Combine, into: Array, places: tuple[Array, ...], new: Array, dtype: DType) -> Array:
    """A tensor with new elements written or combined into it."""
    result = into
    if not into.ndim:  # all of them fall on the one element
        places, result = (np.zeros(len(new), np.int64),), into.reshape(1)
    combine_at(result, places, new, combine, dtype)
    return convert(result.reshape(into.shape), dtype)


def _targets(
    at: Sequence[Index], evaluator: Evaluator, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Which points of a domain, in row-major order, fall inside a tensor, and where."""
    inside = np.ones(shape, np.bool_)
    places: list[Array] = []
    for expression, size in zip(at, sizes, strict=True):
        place = np.broadcast_to(np.asarray(evaluator.index(expression)), shape)
        inside &= (place >= 0) & (place < size)
        places.append(place)
    chosen = inside.reshape(-1)
    return chosen, tuple(place.reshape(-1)[chosen] for place in places)


def _scatter(op: tensor.Scatter, env: dict[Value, Array], context: Context) -> list[Array]:
    spans = _spans(op.dims, context)
    domain = Domain(spans, context.symbols)
    evaluator = Evaluator(domain, env, op.location)
    dtype = op.result.type.dtype
    result = np.array(env[op.init])
    values = np.broadcast_to(convert(evaluator.scalar(op.body), dtype), domain.shape).reshape(-1)
    chosen, target = _targets(op.target, evaluator, domain.shape, result.shape)
    if op.within and not chosen.all():
        raise EvaluationError(f"an index lies outside of %{op.init.name}", place=op.location)
    return [_combined(op.combine, result, target, values[chosen], dtype)]


def _scan(op: tensor.Scan, env: dict[Value, Array], context: Context) -> list[Array]:
    domain = Domain(_spans(op.dims, context), context.symbols)
    values = np.broadcast_to(Evaluator(domain, env, op.location).scalar(op.body), domain.shape)
    return [convert(scan_array(values, domain.axis[op.over], op.monoid, op.accumulate), op.result.type.dtype)]


def _sort(op: tensor.Sort, env: dict[Value, Array], context: Context) -> list[Array]:
    source = env[op.source]
    axis = op.dim % max(source.ndim, 1)
    array = source.reshape(1) if source.ndim == 0 else source
    if op.descending:  # reversing before and after keeps equal elements in order and puts NaN first
        backwards = np.argsort(np.flip(array, axis), axis=axis, kind="stable")
        positions = array.shape[axis] - 1 - np.flip(backwards, axis)
    else:
        positions = np.argsort(array, axis=axis, kind="stable")
    if op.keep is not None:
        positions = np.take(positions, np.arange(_size(op.keep, context)), axis=axis)
    values = np.take_along_axis(array, positions, axis)
    shape = values.shape if source.ndim else ()
    return [values.reshape(shape), positions.astype(np.int64).reshape(shape)]


def _random(op: tensor.Random, env: dict[Value, Array], context: Context) -> list[Array]:
    shape = tuple(_size(size, context) for size in op.result.shape)
    seed = op.seed + (0 if op.key is None else int(env[op.key]))
    return [draw(op.distribution, seed, op.offset, shape, op.result.type.dtype)]


def _call(op: tensor.Call, env: dict[Value, Array], context: Context) -> list[Array]:
    external = context.externals.get(op.target)
    if external is None:
        raise EvaluationError(
            f"nothing runs the external call {op.target!r}", place=op.location, hint="pass it in externals="
        )
    answer = external(op, [env[value] for value in op.inputs])
    arrays = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    if len(arrays) != len(op.results):
        raise EvaluationError(f"{op.target!r} gave {len(arrays)} results, not {len(op.results)}", place=op.location)
    results = [held(array, value.type.dtype) for array, value in zip(arrays, op.results, strict=True)]
    known = {name: size for name, size in context.symbols.items() if context.made.get(name) is not op}
    shapes = ((value.name, value.shape, array.shape) for value, array in zip(op.results, results, strict=True))
    context.symbols.update(bind_symbols(shapes, known))
    return results


def _collective(op: tensor.Collective, env: dict[Value, Array], context: Context) -> list[Array]:
    array = env[op.inputs[0]]
    if op.devices != 1:
        raise EvaluationError(
            f"{op.kind} over {op.devices} devices: the interpreter runs one device", place=op.location
        )
    return [array]


def _launch(op: tensor.Launch, env: dict[Value, Array], context: Context) -> list[Array]:
    kernel = context.module.kernels.get(op.kernel)
    if kernel is None:
        raise EvaluationError(f"no kernel @{op.kernel} in the module", place=op.location)
    given = [env[value] for value in op.inputs]
    shapes = [tuple(_size(size, context) for size in value.shape) for value in op.results]
    if context.launcher is not None:
        results = context.launcher(kernel, given, context.symbols)
        return [np.asarray(r).reshape(shape) for r, shape in zip(results, shapes, strict=True)]
    inputs = [
        array.reshape(tuple(_size(size, context) for size in parameter.shape))
        for array, parameter in zip(given, kernel.inputs, strict=True)
    ]
    buffers = with_outputs(kernel, inputs, context.symbols)
    run_kernel(kernel, buffers, context.symbols)
    return [array.reshape(shape) for array, shape in zip(buffers[len(inputs) :], shapes, strict=True)]


def _if(op: tensor.If, env: dict[Value, Array], context: Context) -> list[Array]:
    taken = op.then if bool(env[op.inputs[0]]) else op.otherwise
    return run_block(taken, dict(env), context)


def _while(op: tensor.While, env: dict[Value, Array], context: Context) -> list[Array]:
    carried = [env[value] for value in op.inputs]
    while True:
        state = {**env, **dict(zip(op.condition.args, carried, strict=True))}
        if not bool(run_block(op.condition, state, context)[0]):
            return carried
        state = {**env, **dict(zip(op.body.args, carried, strict=True))}
        carried = run_block(op.body, state, context)


_RULES: dict[type[Op], Callable[[Any, dict[Value, Array], Context], list[Array]]] = {
    tensor.Compute: _compute,
    tensor.Constant: _constant,
    tensor.Empty: _empty,
    tensor.Fusion: _fusion,
    tensor.Scatter: _scatter,
    tensor.Scan: _scan,
    tensor.Sort: _sort,
    tensor.Random: _random,
    tensor.Call: _call,
    tensor.Collective: _collective,
    tensor.Launch: _launch,
    tensor.If: _if,
    tensor.While: _while,
}
