"""The parts of a network, as its top-level modules divide it: backbone, neck, encoder, head."""
from typing import Iterable, List

from mmdet_bpu.graph.quantized_graph import IMAGE

WHOLE = 'network'
"""Part of calls that lie in no module of their own."""


def part_of(site: str) -> str:
    """Top-level module of a public site name; ``image`` of the input."""
    path, separator, _ = site.rpartition('/')
    if not separator:
        return IMAGE if site == IMAGE else WHOLE
    return path.split('.')[0] or WHOLE


def parts_of(sites: Iterable[str]) -> List[str]:
    """Parts of several sites, each once, in their order."""
    return list(dict.fromkeys(map(part_of, sites)))
