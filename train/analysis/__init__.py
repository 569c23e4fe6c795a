"""Numerics and convergence of spiking networks."""
