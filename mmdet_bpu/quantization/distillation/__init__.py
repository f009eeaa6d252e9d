"""A float teacher beside the quantized detector: what it shows, and how far the student is from it."""
