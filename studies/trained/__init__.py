"""Networks trained on drawn digits."""
