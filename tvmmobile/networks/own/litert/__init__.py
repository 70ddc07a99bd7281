"""Networks in LiteRT files, translated to ONNX operators."""
