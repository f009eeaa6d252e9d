"""From an integer program to a ``.hbm`` with its report: :func:`compile_hbm`."""
import time
from dataclasses import dataclass
from pathlib import Path

from mmdet_bpu.backends import choose_backend, hbdk4
from mmdet_bpu.compiler.hbm_file import write_hbm
from mmdet_bpu.compiler.legality import Finding, check_program, refuse_errors
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.compiler.report import build_report, write_report
from mmdet_bpu.errors import BpuError


@dataclass(frozen=True)
class CompileResult:
    """What a compilation gives.

    Attributes:
        path: The ``.hbm`` that was asked for.
        simulator_path: The ``.hbm`` that :class:`HbmSimulator` runs; ``path`` itself for 'sim'.
        performance: 'summary' with the vendor's fields; from the vendor where it compiled.
        findings: Legality findings, errors first.
        peak_memory_bytes: Arena of the activations plus constants, bytes.
        seconds: Wall time, s.
        backend: 'sim' or 'hbdk4'.
        report_json: Our report as JSON.
        report_html: Our report as HTML.
    """
    path: Path
    simulator_path: Path
    performance: dict
    findings: list[Finding]
    peak_memory_bytes: int
    seconds: float
    backend: str
    report_json: Path
    report_html: Path


def compile_hbm(program, path, march: str, quant_report: list[dict] | None = None,
                backend: str = 'auto', hbir_text: str | None = None) -> CompileResult:
    """Check, schedule, place, estimate and write a program, with its report beside it.

    With the backend 'hbdk4' the vendor's compiler makes ``path`` from ``hbir_text``; the file for
    the simulator is then written beside it as ``<stem>.sim.hbm``, and so is our report.

    Args:
        program (Program): Integer program.
        path: ``.hbm`` to write.
        march (str): March name.
        quant_report (list[dict] | None): Rows per tensor for the report. Defaults to None.
        backend (str): 'auto' (the vendor's compiler if it is installed and ``hbir_text`` is
            given, else 'sim'), 'sim' or 'hbdk4'. Defaults to 'auto'.
        hbir_text (str | None): Fake-quantized HBIR, which 'hbdk4' compiles. Defaults to None.

    Returns:
        CompileResult: Paths, estimate and findings.

    Raises:
        BpuError: Unknown march or backend, an op that cannot run on the march (with its site), or
            a file that cannot be written.
    """
    started = time.perf_counter()
    get_march(march)
    chosen = choose_backend(backend)
    if backend == 'auto' and hbir_text is None:
        chosen = 'sim'
    if chosen == 'hbdk4' and hbir_text is None:
        raise BpuError('backend hbdk4 compiles the fake-quantized HBIR: export it and pass its '
                       'text, or use --backend sim')
    findings = check_program(program, march)
    refuse_errors(findings, march)
    path = Path(path)
    simulated = path.with_suffix('.sim.hbm') if chosen == 'hbdk4' else path
    file = write_hbm(program, simulated, march)
    report = build_report(file, findings, quant_report, title=path.stem)
    report_json, report_html = write_report(report, path.with_suffix(''))
    performance = file.performance
    if chosen == 'hbdk4':
        perf_dir = path.with_suffix('.perf')
        performance = hbdk4.compile_for_board(
            hbir_text, path, march, perf_dir=perf_dir) or performance
    memory = file.performance['summary']['DDR access data']['min memory requirement']
    return CompileResult(path, simulated, performance, findings, memory,
                         time.perf_counter() - started, chosen, report_json, report_html)
