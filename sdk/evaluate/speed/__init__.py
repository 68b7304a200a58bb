"""What a call costs: latency, the device's own clock, power, a peer beside it, and the machine it was measured on."""
