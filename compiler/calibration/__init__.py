"""Choices made by trial on calibration data."""
