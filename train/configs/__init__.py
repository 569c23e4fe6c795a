"""Configurations of every algorithm, and presets."""
