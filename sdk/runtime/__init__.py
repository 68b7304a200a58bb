"""What runs an engine: sessions, pipelines, the estimator, frames in memory. Imports neither torch nor onnx."""
