"""From an integer program to a ``.hbm`` of the simulator with its report: :func:`compile_program`."""
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mmdet_bpu.compiler.legality import Finding, check_program, refuse_errors
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.compiler.memory import plan_memory
from mmdet_bpu.compiler.performance import estimate_performance
from mmdet_bpu.compiler.report import build_report, write_report
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.output_folder import write_atomically
from mmdet_bpu.program.container import seal
from mmdet_bpu.program.hbm_file import (ONLY_NETWORK, CompiledNetwork, HbmFile, encode,
                                         read_hbm)
from mmdet_bpu.program.memory_plan import verify_plan
from mmdet_bpu.program.program import Program
from mmdet_bpu.version import __version__


@dataclass(frozen=True)
class CompileResult:
    """What a compilation gives.

    Attributes:
        path: The ``.hbm`` that was asked for.
        simulator_path: The ``.hbm`` that the simulator runs; ``path`` itself for 'sim'.
        performance: 'summary' with the vendor's fields; from the vendor where it compiled.
        findings: Legality findings, errors first.
        peak_memory_bytes: Arena of the activations plus constants, bytes.
        seconds: Wall time, s.
        backend: Who made ``path``.
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


def compile_program(program: Program, path, march: str, quant_report: list[dict] | None = None,
                    report_stem: Path | None = None) -> CompileResult:
    """Check, schedule, place, estimate and write a program, with its report beside it.

    Args:
        program (Program): Integer program.
        path: ``.hbm`` to write.
        march (str): March name.
        quant_report (list[dict] | None): Rows per tensor for the report. Defaults to None.
        report_stem (Path | None): Name of the report without suffix. Defaults to ``path``'s.

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
    network, = write_hbm(program, path, march).networks
    report = build_report(network, findings, quant_report, title=stem.name)
    report_json, report_html = write_report(report, stem)
    constants = sum(value.type.nbytes for value in program.values.values()
                    if value.data is not None)
    return CompileResult(path, path, network.performance, findings,
                         network.plan.arena_bytes + constants, time.perf_counter() - started, 'sim',
                         report_json, report_html)


def compile_network(program: Program, march: str, name: str = ONLY_NETWORK) -> CompiledNetwork:
    """Schedule, place and estimate a program.

    Args:
        program (Program): Integer program.
        march (str): March name.
        name (str): What the network is called in its file. Defaults to that of an only one.

    Returns:
        CompiledNetwork: The program in the order it runs, its memory plan and its estimate.

    Raises:
        BpuError: Unknown march, or a program that cannot be scheduled.
    """
    order = schedule(program)
    plan = plan_memory(program, order)
    verify_plan(program, order, plan)
    performance = estimate_performance(program, order, plan, get_march(march).name)
    ordered = replace(program, instructions=[program.instructions[index] for index in order])
    return CompiledNetwork(name, ordered, plan, performance)


def hbm_bytes(networks: list[CompiledNetwork], march: str) -> bytes:
    """The ``.hbm`` of compiled networks that share one contract."""
    fields = {'march': march, 'producer': f'mmdet_bpu {__version__}',
              'networks': [network.name for network in networks]}
    return seal(fields, encode(networks))


def write_hbm(program: Program, path, march: str) -> HbmFile:
    """Compile a detector that is one network, and write it.

    Args:
        program (Program): Integer program.
        path: File to write; it appears under its name only when complete.
        march (str): March name.

    Returns:
        HbmFile: What was written.

    Raises:
        BpuError: Unknown march, a program that cannot be scheduled, a file that cannot be written.
    """
    data = hbm_bytes([compile_network(program, march)], get_march(march).name)
    write_atomically(path, data)
    return read_hbm(data)
