"""Generation of tile-level kernels from fused groups and schedules."""
