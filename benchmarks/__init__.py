"""The figures that the README quotes: each module prints one, by one command; those of `gpu/` need a GPU."""
