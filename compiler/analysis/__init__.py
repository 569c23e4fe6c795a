"""What a graph could mean, and what the time step does to its spikes."""
