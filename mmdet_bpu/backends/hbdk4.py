"""The vendor road: HBIR text through ``hbdk4`` to a ``.hbm`` for the board.

Written against the published interface and never yet run against the vendor's compiler:

    load(path) -> Module            Module.parse(text) -> Module
    convert(m, march) -> Module     compile(m, path, march, opt=2, jobs=4)
    hbm_perf(path, output_dir)      writes an HTML and a JSON report into output_dir
"""
import importlib
import importlib.util
import json
from pathlib import Path

from mmdet_bpu.errors import BpuError

MISSING = ("backend hbdk4: the package hbdk4 is not installed here. It comes with the vendor's "
           "OpenExplorer toolkit. Without it, parameter backend='sim' makes a .hbm for the "
           'simulator.')
_FUNCTIONS = ('convert', 'compile', 'hbm_perf')


def available() -> bool:
    """Whether the vendor's compiler can be imported."""
    try:
        return importlib.util.find_spec('hbdk4.compiler') is not None
    except (ModuleNotFoundError, ValueError):
        return False


def compile_for_board(hbir_text: str, path, march: str, opt: int = 2, jobs: int = 4,
                      perf_dir=None) -> dict:
    """Compile fake-quantized HBIR with the vendor's compiler.

    Args:
        hbir_text (str): Content of ``model.hbir.mlir``.
        path: ``.hbm`` to write.
        march (str): March name.
        opt (int): Optimisation level of the vendor's compiler. Defaults to 2.
        jobs (int): Its number of threads. Defaults to 4.
        perf_dir: Folder for the vendor's performance report, None for no report.

    Returns:
        dict: The vendor's performance report, {} if none was asked for or found.

    Raises:
        BpuError: hbdk4 is missing or lacks a function, or refuses the module; the message holds
            the vendor's own words.
    """
    if not available():
        raise BpuError(MISSING)
    compiler = importlib.import_module('hbdk4.compiler')
    missing = [name for name in _FUNCTIONS if not callable(getattr(compiler, name, None))]
    parse = getattr(getattr(compiler, 'Module', None), 'parse', None)
    if parse is None and not callable(getattr(compiler, 'load', None)):
        missing.append('Module.parse or load')
    if missing:
        raise BpuError(f'backend hbdk4: the installed version has no {", ".join(missing)}; a '
                       'version with the published interface is needed')
    path = Path(path)
    module = _step('read the HBIR text', _read, compiler, parse, hbir_text, path)
    module = _step(f'convert it for {march}', compiler.convert, module, march)
    _step(f'compile it for {march}', compiler.compile, module, str(path), march, opt=opt,
          jobs=jobs)
    if not path.exists():
        raise BpuError(f'backend hbdk4: the compiler returned, but wrote no {path}')
    if perf_dir is None:
        return {}
    folder = Path(perf_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _step('estimate its performance', compiler.hbm_perf, str(path), str(folder))
    return read_perf_report(folder)


def read_perf_report(folder) -> dict:
    """The vendor's JSON performance report in a folder, {} if there is none to be read."""
    for candidate in sorted(Path(folder).glob('*.json')):
        try:
            report = json.loads(candidate.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(report, dict) and 'summary' in report:
            return report
    return {}


def _read(compiler, parse, hbir_text: str, path: Path):
    """The text as a module: parsed in memory, or through a file where there is no parser."""
    if parse is not None:
        return parse(hbir_text)
    source = path.with_suffix('.hbdk4-input.mlir')
    source.write_text(hbir_text)
    try:
        return compiler.load(str(source))
    finally:
        source.unlink()


def _step(what: str, function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as error:  # The vendor documents no exception types.
        raise BpuError(f'backend hbdk4 could not {what}: {type(error).__name__}: {error}'
                       ) from error
