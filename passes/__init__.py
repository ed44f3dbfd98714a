"""IR to IR: clean-up, fusion, tiling, schedules, memory."""

from codesign.passes.canonicalize import Canonicalize
from codesign.passes.cleanup import CommonSubexpressions, DeadCode
from codesign.passes.clone import clone_module
from codesign.passes.constants import ConstantFold
from codesign.passes.context import Context, Pricer
from codesign.passes.draws import Draws, Streams
from codesign.passes.fuse import Fuse
from codesign.passes.kernels import PlanMemory, Tile
from codesign.passes.manager import PASSES, Pass, PassManager, parse_pipeline, print_pipeline, register
from codesign.passes.masked import MaskedReads
from codesign.passes.narrow import Narrow
from codesign.passes.nests import NestReductions
from codesign.passes.orders import ReduceOrders
from codesign.passes.periods import Periods
from codesign.passes.pipeline import CLEAN_UP, DEFAULT, optimize
from codesign.passes.precision import SettlePrecision
from codesign.passes.views import FoldViews
from codesign.passes.writes.settle import SettleWrites
from codesign.passes.writes.sparse import SparseWrites

__all__ = [
    "CLEAN_UP",
    "DEFAULT",
    "PASSES",
    "Canonicalize",
    "CommonSubexpressions",
    "ConstantFold",
    "Context",
    "DeadCode",
    "Draws",
    "FoldViews",
    "Fuse",
    "MaskedReads",
    "Narrow",
    "NestReductions",
    "Pass",
    "PassManager",
    "Periods",
    "PlanMemory",
    "Pricer",
    "ReduceOrders",
    "SettlePrecision",
    "SettleWrites",
    "SparseWrites",
    "Streams",
    "Tile",
    "clone_module",
    "optimize",
    "parse_pipeline",
    "print_pipeline",
    "register",
]
