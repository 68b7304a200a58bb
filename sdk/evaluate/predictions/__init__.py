"""From a dataset to predicted joints, through the run-time ops, and the journal that lets a run go on."""
