"""Knobs: one file each, which says what it is called, which values a machine and a kernel allow, its default and what it does.

A knob of one's own is a subclass of `Room` with the decorator `register`, in any module that is imported, or an entry point of the
group `codesign.knobs`. Spaces offer it, schedules carry it, and the check of schedules knows it.
"""

import importlib
import pkgutil

from codesign.passes.knobs.check import check, settled
from codesign.passes.knobs.price import launch_options, machine_under, predict
from codesign.passes.knobs.room import ROOMS, Room, Unpriced, foreign, register, rooms
from codesign.passes.knobs.site import Roles, Site, matrix_product

__all__ = [
    "ROOMS",
    "Roles",
    "Room",
    "Site",
    "Unpriced",
    "check",
    "foreign",
    "launch_options",
    "machine_under",
    "matrix_product",
    "predict",
    "register",
    "rooms",
    "settled",
]

for _found in pkgutil.iter_modules(__path__):  # a knob here is a file here, and nothing else
    importlib.import_module(f"{__name__}.{_found.name}")
