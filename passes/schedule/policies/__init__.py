"""Search policies beyond the three that a compilation needs; each is loaded when it is asked for by name."""
