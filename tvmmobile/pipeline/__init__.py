"""The stages of a run over many variants."""
