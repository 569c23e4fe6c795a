"""ONNX models of ReLUs, and their conversion to rate-coded spiking networks."""
