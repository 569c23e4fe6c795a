"""Where and why a program deviates from its network."""
