"""Partition over cores, placement, and routes."""
