"""From a graph to a Network: what nodes mean, simplification, and retiming."""
