"""What runs on the device: sessions, the estimator, detector, tracking, streams. Imports neither torch nor onnx."""
