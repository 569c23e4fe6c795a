"""From a float network to a chip's integers."""
