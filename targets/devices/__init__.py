"""Running a program on a device, and what a run returns: records, events, counts."""
