"""What a model's time hangs on: figures of a machine changed one at a time, together, over ranges, and towards several goals."""
