"""What half precision and int8 cost."""
