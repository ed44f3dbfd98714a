"""Experiments with passes: two pipelines over models and machines, and the smallest module on which a pass breaks."""
