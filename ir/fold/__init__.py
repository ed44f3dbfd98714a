"""Folds: chains of dependent reductions over the same dims, as one reduction with a wider state and a derived merge."""

from codesign.ir.fold.accounts import Account, accounts
from codesign.ir.fold.derive import alone, folds
from codesign.ir.fold.state import AFTER, BEFORE, Fold, Part, Reference

__all__ = ["AFTER", "BEFORE", "Account", "Fold", "Part", "Reference", "accounts", "alone", "folds"]
