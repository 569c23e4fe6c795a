"""Convex reconstruction of hidden neurons."""
