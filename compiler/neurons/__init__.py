"""Neuron models: float step, rounding to registers, and the facts that the stages ask for."""
