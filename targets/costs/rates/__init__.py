"""Rates of a chip's operations, one TOML file per chip, with their sources."""
