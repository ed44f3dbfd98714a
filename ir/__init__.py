"""The language: an SSA core, index and scalar expressions, ops of three levels, their text, checks and meaning.

Ops live in `codesign.ir.tensor` and `codesign.ir.tile`; text in `codesign.ir.text`; the verifier in
`codesign.ir.verify`; the reference interpreter in `codesign.ir.interpreter`.
"""

from codesign.ir.analysis import ContractionForm, contraction, operation_counts, structural_hash
from codesign.ir.core import Block, Function, Module, Op, Symbol, Value, tensor_type, uses_of
from codesign.ir.dtypes import DTYPES, DType
from codesign.ir.errors import (
    CodesignError,
    EvaluationError,
    MachineError,
    ParseError,
    ScheduleError,
    UnsupportedError,
    VerificationError,
)
from codesign.ir.index import Bounds, Index, ceildiv, maximum, minimum, product
from codesign.ir.location import UNKNOWN, Location, merge
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.structure import equal
from codesign.ir.types import BufferType, TensorType, TileType, row_major

__all__ = [
    "DTYPES",
    "UNKNOWN",
    "Apply",
    "Block",
    "Bounds",
    "BufferType",
    "CodesignError",
    "ContractionForm",
    "DType",
    "EvaluationError",
    "Function",
    "Index",
    "IndexValue",
    "Literal",
    "Location",
    "MachineError",
    "Module",
    "Op",
    "ParseError",
    "Read",
    "Scalar",
    "Schedule",
    "ScheduleBatch",
    "ScheduleError",
    "Symbol",
    "TensorType",
    "TileType",
    "UnsupportedError",
    "Value",
    "VerificationError",
    "apply",
    "cast",
    "ceildiv",
    "contraction",
    "equal",
    "literal",
    "maximum",
    "merge",
    "minimum",
    "operation_counts",
    "product",
    "row_major",
    "select",
    "structural_hash",
    "tensor_type",
    "uses_of",
]
