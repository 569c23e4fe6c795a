"""Where and why a program leaves its network."""
