"""Random networks of five frameworks, for `benchmarks/interop.py`: each module draws for one of them."""
