"""Who is in a frame: detectors, and the same person from frame to frame. The run time knows none of it."""
