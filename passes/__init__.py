"""IR to IR: clean-up, fusion, tiling, schedules, memory."""
