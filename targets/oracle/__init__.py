"""The definition of a program, in plain integers."""
