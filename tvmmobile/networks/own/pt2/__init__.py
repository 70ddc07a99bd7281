"""Networks that `torch.export` made."""
