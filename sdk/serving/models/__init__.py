"""What a model repository carries as `model.py`: run by Triton's Python backend, never imported by the SDK."""
