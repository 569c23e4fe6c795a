"""What neuron an unknown stateful module is, found by driving it."""
