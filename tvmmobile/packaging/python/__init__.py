"""What a wheel of a network contains besides the library: modules that need NumPy and nothing of tvmmobile."""
