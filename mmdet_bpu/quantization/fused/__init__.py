"""Written-out functions that run at once, with all their fake quantizers, in training on a CPU."""
