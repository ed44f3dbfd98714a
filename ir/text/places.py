"""Places in the user's source as both text formats write them."""

from __future__ import annotations

import json

from codesign.ir.location import Location


def place_text(location: Location, between: str) -> str:
    """A place in the user's source as text, the known parts of a fused one with `between` between them."""
    if location.parts:
        return f"fused[{between.join(place_text(part, between) for part in location.parts if part.known)}]"
    parts = [f"{json.dumps(location.file)}:{location.line}"] if location.file or location.line else []
    parts += [f"in {json.dumps(location.module)}"] if location.module else []
    parts += [f"of {json.dumps(location.origin)}"] if location.origin else []
    return " ".join(parts)
