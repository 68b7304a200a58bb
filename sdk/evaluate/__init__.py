"""Accuracy and latency of an engine as it is deployed: datasets, OKS AP, PCK, latency, reports."""
