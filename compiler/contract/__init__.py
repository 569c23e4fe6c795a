"""The contract of a NIR graph: stated, stored, or detected from the exporter."""
