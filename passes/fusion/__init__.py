"""Fusion: groups of computes that one kernel does, and the search for the partition that takes least time."""
