"""The GPU models: geometry of a tiling, occupancy, and the time that follows from them."""
