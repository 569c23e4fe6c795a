"""Accuracy, energy and reports as text, JSON, page and figure."""
