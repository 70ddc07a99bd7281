"""Studies of systems' start-up and of the memory they hold."""
