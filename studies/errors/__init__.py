"""Studies of the accuracy that half precision and int8 cost."""
