"""Engines for servers of others: a Triton model repository."""
