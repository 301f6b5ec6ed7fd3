"""Graphs of the model for ONNX Runtime and TensorRT, and the engines built from them."""
