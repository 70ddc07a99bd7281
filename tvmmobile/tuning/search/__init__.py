"""Schedule search: spaces, cost model, strategies, trials and the tuner that runs them."""

#: Names of the strategies that users can choose; the first is the default.
STRATEGIES = ("evolution", "climb", "random")
