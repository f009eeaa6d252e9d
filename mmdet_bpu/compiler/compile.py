"""From an integer program to a ``.hbm`` of the simulator, with its report."""
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmdet_bpu.collector import paused_collector
from mmdet_bpu.compiler.estimate import Estimate
from mmdet_bpu.compiler.legality import Finding, check_program, refuse_errors
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.compiler.memory import plan_memory
from mmdet_bpu.compiler.performance import estimate_performance
from mmdet_bpu.compiler.report import Report, ReportPictures
from mmdet_bpu.compiler.report_files import write_report
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.output_folder import write_atomically
from mmdet_bpu.program.container import seal
from mmdet_bpu.program.hbm_file import ONLY_NETWORK, CompiledNetwork, encode
from mmdet_bpu.program.memory_plan import verify_plan
from mmdet_bpu.program.program import Program
from mmdet_bpu.version import __version__


@dataclass(frozen=True)
class CompileResult:
    """What a compilation gives.

    Attributes:
        path: The ``.hbm`` that was asked for.
        simulator_path: The ``.hbm`` that the simulator runs; ``path`` itself for 'sim'.
        estimate: Our estimate of latency, traffic and memory.
        findings: Legality findings, errors first.
        seconds: Wall time, s.
        backend: Who made ``path``.
        report_json: Our report as JSON.
        report_html: Our report as HTML.
        vendor_report: The vendor's performance report where its compiler made ``path``, else {}.
    """
    path: Path
    simulator_path: Path
    estimate: Estimate
    findings: list[Finding]
    seconds: float
    backend: str
    report_json: Path
    report_html: Path
    vendor_report: dict = field(default_factory=dict)


@paused_collector()
def compile_program(program: Program, path, march: str, quant_report: list[dict] | None = None,
                    report_stem: Path | None = None,
                    pictures: ReportPictures = ReportPictures()) -> CompileResult:
    """Check, schedule, place, estimate and write a program, with its report beside it.

    Args:
        program (Program): Integer program.
        path: ``.hbm`` to write.
        march (str): March name.
        quant_report (list[dict] | None): Rows per tensor for the report. Defaults to None.
        report_stem (Path | None): Name of the report without suffix. Defaults to ``path``'s.
        pictures (ReportPictures): What was found in test pictures, for the report. Defaults to none.

    Returns:
        CompileResult: Paths, estimate and findings.

    Raises:
        BpuError: Unknown march, an op that cannot run on the march (with its site), or a file that
            cannot be written.
    """
    started = time.perf_counter()
    march = get_march(march).name
    findings = check_program(program, march)
    refuse_errors(findings, march)
    path = Path(path)
    stem = report_stem or path.with_suffix('')
    network, estimate = write_hbm(program, path, march)
    report = Report(network, estimate, findings, quant_report or [], stem.name, pictures)
    report_json, report_html = write_report(report, stem)
    return CompileResult(path, path, estimate, findings, time.perf_counter() - started, 'sim',
                         report_json, report_html)


def write_hbm(program: Program, path, march: str) -> tuple[CompiledNetwork, Estimate]:
    """Write a detector that is one network, unchecked and without a report.

    Args:
        program (Program): Integer program.
        path: File to write; it appears under its name only when complete.
        march (str): March name.

    Returns:
        tuple[CompiledNetwork, Estimate]: See :func:`compile_network`.

    Raises:
        BpuError: Unknown march, a program that cannot be scheduled, a file that cannot be written.
    """
    network, estimate = compile_network(program, march)
    write_atomically(path, hbm_bytes([network], march))
    return network, estimate


def compile_network(program: Program, march: str,
                    name: str = ONLY_NETWORK) -> tuple[CompiledNetwork, Estimate]:
    """Schedule, place and estimate a program.

    Args:
        program (Program): Integer program.
        march (str): March name.
        name (str): What the network is called in its file. Defaults to that of an only one.

    Returns:
        tuple[CompiledNetwork, Estimate]: The program in the order it runs with its memory plan, and
        its estimate.

    Raises:
        BpuError: Unknown march, or a program that cannot be scheduled.
    """
    order = schedule(program)
    plan = plan_memory(program, order)
    verify_plan(program, order, plan)
    estimate = estimate_performance(program, order, plan, march)
    ordered = replace(program, instructions=[program.instructions[index] for index in order])
    return CompiledNetwork(name, ordered, plan, estimate.as_vendor_dict()), estimate


def hbm_bytes(networks: list[CompiledNetwork], march: str) -> bytes:
    """The ``.hbm`` of compiled networks that share one contract."""
    fields = {'march': march, 'producer': f'mmdet_bpu {__version__}',
              'networks': [network.name for network in networks]}
    return seal(fields, encode(networks))
