"""Studies of each optimisation's worth, and of the search for schedules."""
