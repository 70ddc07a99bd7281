"""The machine that tvmmobile runs on, as a board."""
