"""The models of `examples` at the sizes people run, in bfloat16 on the `meta` device: for cost, without any data."""
