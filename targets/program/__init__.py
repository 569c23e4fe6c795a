"""The Program a chip is loaded with: its parts, limits, digest, text and file."""
