"""The few modules that are ours, and the tensor path of mmdet's detectors."""
