"""A real board beside its model: a fixed suite measured on one and modelled on the other, and the model's parameters fitted to it."""
