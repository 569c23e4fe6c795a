"""Running programs and float references, and programs in a loop."""
