"""The text format: `parse` reads a `.tile` file's text into a module, `print_module` writes it; they undo each other."""

from codesign.ir.text.parser import parse
from codesign.ir.text.printer import print_function, print_kernel, print_module, print_op, print_scalar

__all__ = ["parse", "print_function", "print_kernel", "print_module", "print_op", "print_scalar"]
