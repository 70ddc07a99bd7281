"""Schedule search: spaces, cost model, strategies, trials and the tuner that runs them."""
