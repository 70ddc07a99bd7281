"""Maintenance of tuning logs: their content, their faults, merging and compacting."""
