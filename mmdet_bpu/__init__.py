"""Take MMDetection detectors to a BPU: float, calibration, QAT, exact integers, HBIR, hbm."""
