"""What library routines compute: operations of a call, by the algorithm that such libraries use, and the steps that wait for each other.

Counts are those of Golub and Van Loan, Matrix Computations (4th ed., 2013), with the section of each; a multiply-add is two operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.tensor import Call

PANEL = 64
"""Columns that a blocked factorisation does at a time (LAPACK's ILAENV gives 64 to GETRF and POTRF)."""

SERIES = 40.0
"""Operations of a special function for each element: two rational approximations of about ten terms each, of which a warp goes both ways
(Cephes, Moshier 1992, on which torch's are built)."""


@dataclass(frozen=True)
class Work:
    """Operations of a routine, launches that wait for each other, the rule in words, and whether most of it is products of matrices."""

    operations: float
    launches: int
    rule: str
    products: bool = False


@dataclass(frozen=True)
class Matrices:
    """The first matrix of a routine, `m` x `n`, how many there are, and the columns `r` of the right-hand sides."""

    m: float
    n: float
    batch: float
    r: float

    @property
    def small(self) -> float:
        return min(self.m, self.n)

    @property
    def tall(self) -> float:
        return max(self.m, self.n)


Count = Callable[[Matrices], float]


def _lu(a: Matrices) -> float:
    """3.2: elimination."""
    return a.small**2 * (a.tall - a.small / 3)


def _householder(a: Matrices) -> float:
    """5.2: a QR factorisation by reflections, and as much again to multiply them out."""
    return 2 * a.small**2 * (a.tall - a.small / 3)


FACTORISATIONS: Mapping[str, Count] = {
    "cholesky": lambda a: a.n**3 / 3,  # 4.2
    "cholesky_ex": lambda a: a.n**3 / 3,
    "ldl_factor_ex": lambda a: a.n**3 / 3,  # 4.4
    "lu_factor_ex": _lu,
    "lu": _lu,
    "det": _lu,
    "slogdet": _lu,
    "lu_solve": lambda a: 2 * a.n**2 * a.r,  # 3.1: two triangles
    "ldl_solve": lambda a: 2 * a.n**2 * a.r,
    "cholesky_solve": lambda a: 2 * a.n**2 * a.r,
    "solve_triangular": lambda a: a.n**2 * a.r,
    "triangular_solve": lambda a: a.n**2 * a.r,
    "solve_ex": lambda a: _lu(a) + 2 * a.n**2 * a.r,
    "inv_ex": lambda a: 2 * a.n**3,  # 3.4
    "cholesky_inverse": lambda a: 2 * a.n**3 / 3,
    "qr": lambda a: 2 * _householder(a),
    "geqrf": _householder,
    "householder_product": _householder,
    "ormqr": lambda a: 4 * a.m * a.small * a.r,
    "lstsq": lambda a: _householder(a) + 4 * a.m * a.n * a.r,
    "eigh": lambda a: 9 * a.n**3,  # 8.3, with vectors
    "eigvalsh": lambda a: 4 * a.n**3 / 3,
    "eig": lambda a: 25 * a.n**3,  # 7.5, with vectors
    "eigvals": lambda a: 10 * a.n**3,
    "svd": lambda a: 4 * a.tall**2 * a.small + 8 * a.tall * a.small**2 + 9 * a.small**3,  # 8.6, with vectors
    "svdvals": lambda a: 4 * a.tall * a.small**2 - 4 * a.small**3 / 3,
    "matrix_exp": lambda a: 10 * 2 * a.n**3,  # 9.3: about ten products of scaling and squaring
}
"""By the operator's name without namespace, overload, `linalg_` and underscores in front."""


VALUES_ALONE = {"svd": "svdvals", "eigh": "eigvalsh"}
"""What an operator does whose results for vectors are empty."""


def work_of(op: Call, sizes: Mapping[str, int]) -> Work | None:
    """The work of a call; None where nobody has a rule for it."""
    parts = op.target.split(".")
    name = parts[1] if len(parts) > 1 else op.target
    plain = name.strip("_").removeprefix("linalg_").removeprefix("fft_")
    if plain in VALUES_ALONE and any(_elements(value, sizes) == 0 for value in op.results):
        plain = VALUES_ALONE[plain]
    count = FACTORISATIONS.get(plain)
    if count is not None and op.inputs and len(op.inputs[0].shape) >= 2:
        a = _matrices(op.inputs, sizes)
        panels = math.ceil(a.small / PANEL)
        return Work(count(a) * a.batch, 2 * panels - 1, f"{plain} in {panels} panels of {PANEL} columns", True)
    elements = max((_elements(value, sizes) for value in (*op.inputs, *op.results)), default=0.0)
    if plain.startswith("fft_") or plain in ("c2c", "r2c", "c2r"):
        length = max((_sizes(value, sizes)[-2:] or [1])[0] for value in op.results)
        return Work(5 * elements * math.log2(max(length, 2)), 1, "5 n log2 n of a fast Fourier transform")
    if plain.startswith("special_") or plain in SPECIAL:
        return Work(SERIES * elements, 1, f"a special function of about {SERIES:.0f} operations an element")
    if "upsample" in plain and plain.endswith("_aa"):
        given, made = _elements(op.inputs[0], sizes), _elements(op.results[0], sizes)
        return Work(2 * 4 * max(given, made), 1, "each element of the larger image weighted about four times")
    if plain in ("pdist_forward", "cdist_forward"):
        rows = _sizes(op.inputs[0], sizes)
        return Work(3 * rows[-1] * _elements(op.results[0], sizes), 1, "three operations a component of each pair")
    return None


SPECIAL = ("i0", "igamma", "igammac", "polygamma", "lgamma", "digamma", "erfinv", "gcd", "lcm", "frexp")
"""Special functions that are not called so."""


def least_operations(op: Call, sizes: Mapping[str, int]) -> float:
    """Operations that no routine of these results goes below: one for each element it gives."""
    return sum(_elements(value, sizes) for value in op.results)


def _matrices(inputs: Sequence[Value], sizes: Mapping[str, int]) -> Matrices:
    shapes = [_sizes(value, sizes) for value in inputs if len(value.shape) >= 2]
    square = next((shape for shape in shapes if len(shapes) > 1 and shape[-1] == shape[-2] == shapes[0][-2]), shapes[0])
    others = [shape for shape in shapes if shape is not square]
    columns = others[0][-1] if others else square[-2]
    return Matrices(square[-2], square[-1], math.prod(square[:-2]), columns)


def _sizes(value: Value, sizes: Mapping[str, int]) -> list[float]:
    return [float(size.evaluate(sizes)) for size in value.shape]


def _elements(value: Value, sizes: Mapping[str, int]) -> float:
    return math.prod(_sizes(value, sizes))
