"""From a network to an engine: export, precision, calibration, quantisation, compilation. Build time only."""
