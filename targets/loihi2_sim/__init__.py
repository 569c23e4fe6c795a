"""The fast simulator: one compiled kernel over flat arrays."""
