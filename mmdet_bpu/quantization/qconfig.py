"""Which dtype, observer and scale a tensor gets: user rules first, then the template.

A rule is a dict: ``site`` (glob on the public site name), ``module`` (class name of the enclosing
module) and ``op`` (kind or torch function name) say what it matches, all given ones must;
``dtype``, ``observer``, ``scale`` and ``weight_observer`` say what it sets. The first match wins, for
weights the first that has ``weight_observer``, for all else the first that has something else.
"""
import fnmatch
from typing import Any, Dict, Sequence, Union

from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import (Placement, QuantizedGraph, RuleSource,
                                             TensorConfig)
from mmdet_bpu.program.dtypes import USER_DTYPES
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization.config_checks import (check_accumulators, check_int8,
                                                  check_sampling)
from mmdet_bpu.quantization.rules import check_rules
from mmdet_bpu.quantization.template import Template

WHOLE = 'minmax'
"""Observer by which a weight's integers reach to its largest magnitude."""


def _matches(rule: dict, op: Op, model: nn.Module) -> bool:
    if 'site' in rule and not fnmatch.fnmatchcase(op.site, rule['site']):
        return False
    if 'module' in rule and type(model.get_submodule(op.path)).__name__ != rule['module']:
        return False
    return 'op' not in rule or rule['op'] in (op.kind, op.function, op.params.get('fn'))


def assign(graph: OpGraph, placement: Placement, rules: Sequence[dict],
           model: nn.Module) -> Dict[str, TensorConfig]:
    """Config of every own value; members of a group get one, of the widest dtype.

    Raises:
        BpuError: A malformed rule, a rule that matches no site, int32 where integers are read, or
            more than int8 where int8 is read.
    """
    check_rules(rules)
    template = Template(graph, placement)
    producers = graph.producers()
    used = [False] * len(rules)
    configs: Dict[str, TensorConfig] = {}
    for op in graph.ops:
        hits = [i for i, rule in enumerate(rules) if _matches(rule, op, model)]
        for i in hits:
            used[i] = True
    about_activations = [set(rule) & {'dtype', 'observer', 'scale'} for rule in rules]
    for value in placement.group:
        config = template.dtype(value)
        op = producers.get(value) or Op('input', [], {}, value, 'image')
        for index, rule in enumerate(rules):
            if value in graph.inputs:
                hit = 'site' in rule and fnmatch.fnmatchcase('image', rule['site'])
                used[index] |= hit
            else:
                hit = _matches(rule, op, model)
            if hit and about_activations[index]:
                config = _ruled(config, rule, index)
                break
        configs[value] = config
    for index, hit in enumerate(used):
        if not hit:
            raise BpuError(f'bpu.qconfig[{index}] matches nothing: {rules[index]!r}; '
                           'tools/check_model.py CONFIG --sites lists the sites')
    configs = _grouped(graph, placement, configs)
    check_accumulators(graph, placement, configs)
    check_int8(placement, configs, template.narrow)
    check_sampling(graph, placement, configs)
    return configs


def weight_observers(quantized: QuantizedGraph, model: nn.Module,
                     default: Union[str, dict]) -> Dict[str, Union[str, dict]]:
    """Public name of a weight -> its observer, where that is not the largest magnitude.

    Args:
        quantized (QuantizedGraph): What is quantized; its rules: the first that matches a product that
            reads the weight and has ``weight_observer`` wins.
        model (nn.Module): The detector.
        default (str | dict): Where no rule says more.
    """
    rules = [rule for rule in quantized.rules if 'weight_observer' in rule]
    ruled, names = {}, []
    for op in quantized.graph.ops:
        if KINDS[op.kind].weight is not None:
            names.append(quantized.weight_name(op))
            hits = (rule['weight_observer'] for rule in rules if _matches(rule, op, model))
            ruled.setdefault(names[-1], next(hits, None))
    found = {name: default if ruled[name] is None else ruled[name] for name in names}
    return {name: observer for name, observer in found.items() if observer != WHOLE}


def _ruled(config: TensorConfig, rule: Dict[str, Any], index: int) -> TensorConfig:
    # A rule that is not about the scale leaves one that the template has fixed.
    kept = config.scale if rule.get('dtype', config.dtype) == config.dtype \
        and 'observer' not in rule else None
    return TensorConfig(rule.get('dtype', config.dtype), f'qconfig[{index}]', RuleSource.USER,
                        rule.get('observer'), rule.get('scale', kept))


def _grouped(graph: OpGraph, placement: Placement,
             configs: Dict[str, TensorConfig]) -> Dict[str, TensorConfig]:
    """One config per group: the widest dtype; a user's rule goes before the template, a fixed scale
    before an observed one."""
    order = {name: i for i, name in enumerate(USER_DTYPES)}

    def rank(config: TensorConfig) -> tuple:
        return (config.source is RuleSource.USER, order[config.dtype], config.scale is not None)

    best: Dict[str, TensorConfig] = {}
    for value, config in configs.items():
        head = placement.find(value)
        if head not in best or rank(config) > rank(best[head]):
            best[head] = config
    return {value: best[placement.find(value)] for value in configs}
