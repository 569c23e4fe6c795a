"""Networks of integers to map, and what their cores use."""
