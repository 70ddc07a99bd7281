"""What a library computes of labelled images."""
