"""How systems start, and the memory they hold."""
