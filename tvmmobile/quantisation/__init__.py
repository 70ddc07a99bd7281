"""Post-training quantisation: converts a float32 network to 8-bit integers from the values that its layers compute on calibration data."""
