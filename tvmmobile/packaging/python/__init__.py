"""Contents of a network's wheel besides the library: modules that need NumPy and nothing of tvmmobile."""
