"""Overrides of a config as text: ``model.bbox_head.num_classes=10``."""
import argparse
from typing import Any, Dict, Sequence

from mmengine.config import DictAction

from mmdet_bpu.errors import BpuError


def parse_options(options: Sequence[str]) -> Dict[str, Any]:
    """Dotted keys with values, from KEY=VALUE as mmengine's commands take them.

    Raises:
        BpuError: One of them is no KEY=VALUE, or its brackets do not match.
    """
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    try:
        return parser.parse_args(['--options', *options]).options
    except (ValueError, AssertionError, argparse.ArgumentError) as error:
        raise BpuError(f'parameter cfg_options: expected KEY=VALUE ..., found {" ".join(options)} '
                       f'({error})') from None
