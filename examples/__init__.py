"""Models that a newcomer compiles first: small sizes here, to be run and checked; real sizes in `examples/real`."""
