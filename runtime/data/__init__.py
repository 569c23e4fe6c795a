"""Data sets by name, and how samples become inputs."""
