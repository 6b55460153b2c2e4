"""From a trained model to an ONNX file with a contract, and back."""
