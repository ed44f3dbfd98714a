"""Schedules: spaces, policies that search them, and the tuner that brings both to a fused group."""
