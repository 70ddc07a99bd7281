"""A registered board: what it is, how it is kept, and the link to its agent."""
