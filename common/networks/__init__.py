"""Network blocks and whole networks."""
