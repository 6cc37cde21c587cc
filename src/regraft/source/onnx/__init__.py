"""ONNX files as trainable networks.

In: a graph of operators. Out: a `Source` whose module runs it in PyTorch, initialisers as parameters under their names.
Law: its answers are those of ONNX Runtime.
"""
