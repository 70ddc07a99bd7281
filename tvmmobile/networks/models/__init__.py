"""Networks as tables: their layers, costs, published figures and PyTorch modules."""
