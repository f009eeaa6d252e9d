"""Start worker processes that Ctrl-C does not reach."""
import signal
from multiprocessing.process import BaseProcess


def start_shielded(process: BaseProcess) -> None:
    """Start a forked process that never sees Ctrl-C, which a terminal sends to all processes.

    Its parent sees it and ends the process. During the fork it waits: Python would lose it there,
    or print a traceback of each process.

    Args:
        process (BaseProcess): Not yet started, of the start method ``fork``.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
