"""What each step is worth, and how the kernels are found."""
