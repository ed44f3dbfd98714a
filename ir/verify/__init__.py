"""The verifier: whether a module keeps the rules of its levels.

Messages name the op, the value, and the line of the user's model that it came from. What can't be decided (sizes that
are symbols, indices that depend on data) is let pass; the interpreter checks it at run time.
"""

from codesign.ir.core import Function, Module
from codesign.ir.errors import VerificationError
from codesign.ir.index import Bounds
from codesign.ir.program import Program
from codesign.ir.tile import Kernel
from codesign.ir.verify.names import check_name
from codesign.ir.verify.program import ProgramVerifier
from codesign.ir.verify.tensor import TensorVerifier
from codesign.ir.verify.tile import KernelVerifier

__all__ = ["verify", "verify_function", "verify_kernel", "verify_program"]


def verify(module: Module) -> None:
    """Check everything in a module; VerificationError at the first rule broken."""
    for symbol in module.symbols.values():
        check_name("a size symbol", symbol.name)
        if symbol.low < 0 or (symbol.high is not None and symbol.high < symbol.low):
            raise VerificationError(f"symbol {symbol.name} ranges from {symbol.low} to {symbol.high}")
    for name, function in module.functions.items():
        if function.name != name:
            raise VerificationError(f"function @{function.name} is filed under @{name}", place=function.location)
        verify_function(function, module)
    for name, kernel in module.kernels.items():
        if kernel.name != name:
            raise VerificationError(f"kernel @{kernel.name} is filed under @{name}", place=kernel.location)
        verify_kernel(kernel, module.bounds())
    for name, program in module.programs.items():
        if program.name != name:
            raise VerificationError(f"program @{program.name} is filed under @{name}", place=program.location)
        verify_program(program)


def verify_function(function: Function, module: Module) -> None:
    """Check one tensor-level function of a module."""
    check_name("a function", function.name, function.location)
    TensorVerifier(module, function).block(function.body, set())


def verify_kernel(kernel: Kernel, bounds: Bounds | None = None) -> None:
    """Check one kernel; `bounds` gives ranges of its size symbols."""
    check_name("a kernel", kernel.name, kernel.location)
    KernelVerifier(kernel, bounds or Bounds()).run()


def verify_program(program: Program) -> None:
    """Check one program of the accelerator level."""
    check_name("a program", program.name, program.location)
    ProgramVerifier(program).run()
