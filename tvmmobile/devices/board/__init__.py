"""A registered board: its description, its device file, and the link to its agent."""
