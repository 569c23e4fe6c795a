"""Checkpoints and state dicts, read without executing code."""
