"""A network as layers and tasks, and the passes that bring it there."""
