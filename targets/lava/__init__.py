"""Lava's CPU runtime and its models, as independent devices."""
