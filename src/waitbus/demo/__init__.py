"""A bus of its own for a while, and what is shown on it."""
