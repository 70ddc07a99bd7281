"""Looking after tuning logs: what is in them, what is wrong with them, and joining them."""
