"""Valid ``.hbm`` files with what they compute, and files with other content and valid hashes."""
from typing import NamedTuple

import torch

from fuzzing.executable_runs import serve
from fuzzing.integer_seeds import modules
from mmdet_bpu.compiler.compile import compile_network, hbm_bytes
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.program.container import seal, unseal


class Seed(NamedTuple):
    """A valid file.

    Attributes:
        name (str): Of the module it was made from.
        data (bytes): The file.
        header (dict): As it stands in the file.
        sections (dict[str, bytes]): Content by name.
        outputs (dict): What it gives, see :func:`fuzzing.executable_runs.serve`.
    """
    name: str
    data: bytes
    header: dict
    sections: dict[str, bytes]
    outputs: dict


def seeds() -> list[Seed]:
    """One for each module."""
    found = []
    for name, module in modules().items():
        network, _ = compile_network(program_from_module(module), 'nash-e')
        data = hbm_bytes([network], 'nash-e')
        header, sections = unseal(data)
        version = header.pop('format_version')
        assert version == 2
        found.append(Seed(name, data, header, sections, serve(HbmSimulator(data))))
    assert all(torch.is_tensor(value) for seed in found for value in seed.outputs.values())
    return found


def sealed(header: dict, sections: dict[str, bytes]) -> bytes:
    """A file with other content and every hash valid."""
    fields = {key: value for key, value in header.items()
              if key not in ('format', 'notice', 'sections')}
    return seal(fields, sections)
