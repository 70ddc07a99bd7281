"""Claims about tvmmobile, checked from outside."""
