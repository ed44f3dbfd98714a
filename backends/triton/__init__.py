"""Tile IR to Triton: source, ahead-of-time compiled kernels, execution, verification, a runner for the whole model."""
