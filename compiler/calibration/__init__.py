"""Choices by trial on calibration data: tables, membrane ranges, rounding, mixed precision."""
