"""Layers and networks that train."""
