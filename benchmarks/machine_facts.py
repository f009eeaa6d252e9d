"""The machine that a benchmark ran on, for its JSON."""
import os
import platform
from pathlib import Path

import torch


def machine() -> dict:
    """CPU model, usable cores, accelerator and versions."""
    info = Path('/proc/cpuinfo')
    names = [line.split(':', 1)[1].strip() for line in info.read_text().splitlines()
             if line.startswith('model name')] if info.exists() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(
        cpu=names[0] if names else platform.processor(),
        cores=cores,
        accelerator=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=torch.__version__)
