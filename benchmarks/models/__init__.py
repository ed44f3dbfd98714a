"""Models whose launches are counted beside the examples: layers of published sizes, on `meta`."""
