"""Compiled passes over whole sequences, with gradients by hand."""
