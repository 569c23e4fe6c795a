"""Neuron models beyond the leaky ones: float step and rounding to registers."""
