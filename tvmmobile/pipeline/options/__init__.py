"""User options, each with its type, default, check and documentation in one place."""
