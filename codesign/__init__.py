"""One tile-level IR, one schedule, any machine, and a number you can argue with.

The rooms of the house are the packages `codesign.ir`, `codesign.costmodel`, `codesign.passes`, `codesign.frontend` and
`codesign.backends`; importing `codesign` itself loads none of them but a table of names, so that it costs nothing.
"""

from pathlib import Path as _Path

__version__ = "0.1.0"

# The rooms are folders at the top of the repository, linked into this package. A checkout whose tools do not keep
# links (Windows, some archives) has a small text file in each link's place: look for the rooms one folder up instead.
if not (_Path(__file__).parent / "ir").is_dir():
    __path__.append(str(_Path(__file__).resolve().parent.parent))

from codesign.costmodel.generators import register as _register

# What a code generator adds reaches the prices by the name of its backend; it is loaded when a price first needs it.
_register("triton", "codesign.backends.triton.generated:TRITON", kind="gpu")
