"""Neuron equations in torch: the definitions."""
