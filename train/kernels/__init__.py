"""Compiled passes over whole sequences, with gradients written by hand."""
