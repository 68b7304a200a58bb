"""The GPU run time: one CUDA graph from frame to keypoints. Imported only when a CUDA device is asked for."""
