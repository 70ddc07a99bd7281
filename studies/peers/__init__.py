"""The comparison with other libraries: which systems there are, what they run, what was found, and how it is shown."""
