"""The cycles that a core takes for a block of instructions."""
