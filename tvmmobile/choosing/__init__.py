"""The best network within a budget, from latencies in tuning logs and known accuracies."""
