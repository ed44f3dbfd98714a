"""The mapping space: how a product lies on the levels of a machine, what that costs, and the mapping that costs least.

A `Problem` is a product of operands over dims, a `Hierarchy` the memories and axes in space of a machine. A `Nest` says which operand is
staged in which memory and in what order; a mapping is a nest with a factor of each dim at each of its loops. Dataflows (weight, output, input or
row stationary) are mappings: what stays in the innermost memory while others pass.
"""

from codesign.costmodel.mapping.counting import ACCELFORGE, COUNTINGS, OWN, Costs, Counting
from codesign.costmodel.mapping.hierarchy import Axis, Hierarchy, Store, hierarchy_of
from codesign.costmodel.mapping.nest import Nest, nests
from codesign.costmodel.mapping.problem import Operand, Problem, batched, gemm, parse_problem
from codesign.costmodel.mapping.search import OBJECTIVES, Found, search, search_filled

__all__ = [
    "ACCELFORGE",
    "COUNTINGS",
    "OBJECTIVES",
    "OWN",
    "Axis",
    "Costs",
    "Counting",
    "Found",
    "Hierarchy",
    "Nest",
    "Operand",
    "Problem",
    "Store",
    "batched",
    "gemm",
    "hierarchy_of",
    "nests",
    "parse_problem",
    "search",
    "search_filled",
]
