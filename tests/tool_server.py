"""Runs commands of tools/ in forks of one process that has imported what they share.

Importing mmdet takes most of the time of a short command. Every command still runs in a process and
a folder of its own. A request is one line of JSON on stdin: ``argv`` (the tool's path first),
``cwd``, ``stdout`` and ``stderr`` (files to write) and ``seconds`` (then it is killed); the answer
is its exit code on a line of stdout, negative if a signal ended it.
"""
import json
import os
import runpy
import signal
import sys
import traceback

# Asking CUDA itself whether it is there would leave it unusable in the forks.
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

from mmdet_bpu.apis import *  # noqa: E402, F401, F403
import mmdet_bpu.engine.runner  # noqa: E402, F401
import mmdet_bpu.registration  # noqa: E402, F401
from mmdet_bpu.kernels.registry import kernel_set  # noqa: E402

kernel_set('fast')  # reads its machine code once


def run_tool(argv: list[str], cwd: str) -> int:
    """Run a tool as ``__main__``; returns its exit code."""
    os.chdir(cwd)
    sys.argv = argv
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(request: dict) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.alarm(request['seconds'])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, name in ((1, 'stdout'), (2, 'stderr')):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        code = run_tool(request['argv'], request['cwd'])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == '__main__':
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)
