"""Who is in a frame: detectors, and the same person from frame to frame. Uses the run time; the run time knows none of it."""
