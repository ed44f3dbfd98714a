"""Backends: tile IR to Triton kernels, and tile IR to programs of simulated accelerators."""
