"""Neuron models that `diverge` supports: tensors of both sides, error bounds, causes; a file per model."""
