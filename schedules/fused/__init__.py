"""Templates for several layers in one kernel."""
