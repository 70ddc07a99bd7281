"""What a user may choose: each option with its type, default, check and documentation in one place."""
