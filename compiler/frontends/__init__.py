"""Readers of untrusted files: NIR, lava-dl's .net, and the choice between them."""
