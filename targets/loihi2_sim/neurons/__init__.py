"""The compiled step of each neuron model; every file here registers the layout of its models."""
