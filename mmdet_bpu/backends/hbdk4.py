"""The vendor road: HBIR text through ``hbdk4`` to a ``.hbm`` for the board.

Written against the published interface and never yet run against the vendor's compiler:

    load(path) -> Module            Module.parse(text) -> Module
    convert(m, march) -> Module     compile(m, path, march, opt=2, jobs=4)
    hbm_perf(path, output_dir)      writes an HTML and a JSON report into output_dir
    module.functions[0].inputs[0].insert_image_preprocess(mode, divisor, mean, std, is_signed)
    module.functions[0].inputs[0].insert_image_convert(mode)      both before convert
    module.functions[0].feed({name: array}) -> {name: array}     runs a module on the CPU
    module.functions[0].inputs, .outputs     each with .name, .type.shape, .type.np_dtype
"""
import importlib
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from mmdet_bpu.errors import BpuError

ABSENT = ("the package hbdk4 is not installed here. It comes with the vendor's OpenExplorer "
          'toolkit.')
MISSING = (f"backend hbdk4: {ABSENT} Without it, parameter backend='sim' makes a .hbm for the "
           'simulator.')
_FUNCTIONS = ('convert', 'compile', 'hbm_perf')


def available() -> bool:
    """Whether the vendor's compiler can be imported."""
    try:
        return importlib.util.find_spec('hbdk4.compiler') is not None
    except (ModuleNotFoundError, ValueError):
        return False


def compile_for_board(hbir_text: str, path, march: str, opt: int = 2, jobs: int = 4,
                      perf_dir=None, camera: Optional[dict] = None) -> dict:
    """Compile fake-quantized HBIR with the vendor's compiler.

    Args:
        hbir_text (str): Content of ``model.hbir.mlir``.
        path: ``.hbm`` to write.
        march (str): March name.
        opt (int): Optimisation level of the vendor's compiler. Defaults to 2.
        jobs (int): Its number of threads. Defaults to 4.
        perf_dir: Folder for the vendor's performance report, None for no report.
        camera (dict, optional): ``preprocessing`` of a contract whose network converts a camera's
            planes: the vendor's own calls insert that before the image. Defaults to none.

    Returns:
        dict: The vendor's performance report, {} if none was asked for or found.

    Raises:
        BpuError: hbdk4 is missing or lacks a function, or refuses the module; the message holds
            the vendor's own words.
    """
    if not available():
        raise BpuError(MISSING)
    compiler = _compiler(_FUNCTIONS)
    path = Path(path)
    module = _read(compiler, hbir_text, path.parent)
    if camera is not None:
        # What it needs takes seconds to import, and no command needs it to ask whether hbdk4 is there.
        from mmdet_bpu.backends.camera_calls import insert_camera
        insert_camera(module, camera, _step)
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


def quantized_function(hbir_text: str, march: str) -> Any:
    """The vendor's own quantized network, which its Python package runs on the CPU.

    Args:
        hbir_text (str): Fake-quantized HBIR.
        march (str): March name.

    Returns:
        Any: The only function of what ``convert`` made: ``feed``, ``inputs``, ``outputs``.

    Raises:
        BpuError: As :func:`compile_for_board`; or what was made has not exactly one function to
            feed.
    """
    if not available():
        raise BpuError(f'backend hbdk4: {ABSENT}')
    compiler = _compiler(('convert', ))
    with tempfile.TemporaryDirectory() as folder:
        module = _read(compiler, hbir_text, Path(folder))
    module = _step(f'convert it for {march}', compiler.convert, module, march)
    functions = list(getattr(module, 'functions', ()))
    if len(functions) != 1 or not callable(getattr(functions[0], 'feed', None)):
        raise BpuError(f'backend hbdk4: expected one function to feed in the converted module, found '
                       f'{len(functions)}; a version with the published interface is needed')
    return functions[0]


def _compiler(functions: Sequence[str]) -> Any:
    """The vendor's module, if it has these functions and reads text."""
    compiler = importlib.import_module('hbdk4.compiler')
    missing = [name for name in functions if not callable(getattr(compiler, name, None))]
    if _parser(compiler) is None and not callable(getattr(compiler, 'load', None)):
        missing.append('Module.parse or load')
    if missing:
        raise BpuError(f'backend hbdk4: the installed version has no {", ".join(missing)}; a '
                       'version with the published interface is needed')
    return compiler


def _parser(compiler: Any) -> Optional[Callable[[str], Any]]:
    return getattr(getattr(compiler, 'Module', None), 'parse', None)


def _read(compiler: Any, hbir_text: str, folder: Path) -> Any:
    """The text as a module: parsed in memory, or through a file where there is no parser."""
    parse = _parser(compiler)
    if parse is not None:
        return _step('read the HBIR text', parse, hbir_text)
    source = folder / 'hbdk4-input.mlir'
    source.write_text(hbir_text)
    try:
        return _step('read the HBIR text', compiler.load, str(source))
    finally:
        source.unlink()


def _step(what: str, function: Callable, *args, **kwargs) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:  # The vendor documents no exception types.
        raise BpuError(f'backend hbdk4 could not {what}: {type(error).__name__}: {error}'
                       ) from error
