"""What a module's forward computes, written down step by step."""
