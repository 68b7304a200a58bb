"""Torch modules of the catalogue's networks and the reading of their checkpoints. Build time only."""
