"""Writes into a part of a tensor: which of them are made in its own memory, which become a select over all of it, and who makes them."""
