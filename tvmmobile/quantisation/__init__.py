"""Post-training quantisation: a float32 network in 8-bit integers, by what its layers compute of calibration data."""
