"""Campaigns of hostile inputs live with the benchmarks."""
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks'))
