"""From a quantized graph to HBIR, and the artefacts that are made of it."""
