"""The process and the machine it runs on: errors, files, signals, workers, programs."""
