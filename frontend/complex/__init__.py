"""Complex tensors as real ones, before a graph becomes IR: the language of the compiler has no complex numbers."""

from codesign.frontend.complex.rewrite import complex_outputs, real_form

__all__ = ["complex_outputs", "real_form"]
