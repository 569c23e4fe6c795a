"""Chips as data: limits, number formats and energy tables, read from TOML."""
