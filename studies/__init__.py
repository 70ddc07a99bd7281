"""Measures and compares tvmmobile for publication; nothing in the product imports it. `./studies/run` lists the studies."""
