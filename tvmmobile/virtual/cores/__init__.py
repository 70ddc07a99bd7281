"""What a core does with a block of instructions, in cycles."""
