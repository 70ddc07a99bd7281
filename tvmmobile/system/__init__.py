"""The process and the machine it runs on: errors, files, locks, signals, workers, programs."""
