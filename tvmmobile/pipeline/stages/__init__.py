"""The stages of a run over several variants, in worker processes."""
