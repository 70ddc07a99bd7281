"""Schedule search: spaces, cost model, strategies, trials and the tuner that runs them."""

#: Classes in strategy.py by the names that users give; the first is the default. Only a search imports them.
STRATEGIES = {"evolution": "GuidedEvolution", "climb": "HillClimbing", "random": "RandomSampling"}
