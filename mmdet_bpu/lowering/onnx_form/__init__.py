"""The quantized graph as a standard ONNX model."""
