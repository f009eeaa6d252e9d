"""Which tensors a search may give another dtype, and what the cost model asks for int16.

A setting is what every tensor has that can have both int8 and int16. All else stays as the template
and the user's own rules have it.
"""
import glob
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional

from torch import nn

from mmdet_bpu.analysis.setting_costs import SettingCosts
from mmdet_bpu.collector import paused_collector
from mmdet_bpu.compiler.compile import compile_network
from mmdet_bpu.compiler.estimate import Estimate
from mmdet_bpu.compiler.march import March
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import IMAGE, QuantizedGraph, TensorConfig
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.export import lower_network
from mmdet_bpu.quantization import quantization_of, quantized_graphs
from mmdet_bpu.quantization.qconfig import assign
from mmdet_bpu.quantization.refusals import refuse_without_integer_form
from mmdet_bpu.quantization.scale_choice import ScaleChoice

Setting = Mapping[str, str]
"""Name of a free tensor -> dtype."""
OTHER = {'int8': 'int16', 'int16': 'int8'}


class SearchSpace:
    """The settings of a calibrated detector.

    Args:
        model (nn.Module): A prepared detector with its scales.
        choice (ScaleChoice): Gives those of other dtypes.
        rules (list[dict]): The user's own, which are kept.

    Attributes:
        template (dict[str, str]): The setting that the template and the user's rules give.
    """

    def __init__(self, model: nn.Module, choice: ScaleChoice, rules: List[dict]) -> None:
        self.model, self.choice, self.own_rules = model, choice, list(rules)
        self.network, = quantized_graphs(model)
        self.template: Dict[str, str] = {}
        self.configs = {self.network.name(value): config
                        for value, config in self._assigned(self.own_rules).items()}
        dtypes = {name: config.dtype for name, config in self.configs.items()}
        for name, config in self.configs.items():
            # The board's image is int8.
            if config.dtype in OTHER and config.scale is None and name != IMAGE \
                    and self._dtypes([self._rule(name, OTHER[config.dtype])]) == {
                        **dtypes, name: OTHER[config.dtype]}:
                self.template[name] = config.dtype

    def rules(self, setting: Setting) -> List[dict]:
        """Rules that make a setting, the user's own behind them."""
        changed = [name for name in self.template if setting[name] != self.template[name]]
        return [self._rule(name, setting[name]) for name in changed] + self.own_rules

    def _rule(self, name: str, dtype: str) -> Dict[str, Any]:
        observer = self.configs[name].observer
        rule = dict(site=glob.escape(name), dtype=dtype)
        return rule if observer is None else dict(rule, observer=observer)

    def all_of(self, dtype: str) -> Dict[str, str]:
        """The setting with as many tensors of ``dtype`` as can have it together."""
        return self.widened({name: 'int8' for name in self.template}, list(self.template)) \
            if dtype == 'int16' else {name: 'int8' for name in self.template}

    def widened(self, setting: Setting, names: List[str]) -> Dict[str, str]:
        """A setting with those of ``names`` in int16, one after the other, that then still can."""
        together = {**setting, **dict.fromkeys(names, 'int16')}
        if self.is_legal(together):
            return together
        found = dict(setting)
        for name in names:
            if found[name] != 'int16' and self.is_legal({**found, name: 'int16'}):
                found[name] = 'int16'
        return found

    def is_legal(self, setting: Setting) -> bool:
        """Whether all ops take their operands' dtypes."""
        try:
            self._assigned(self.rules(setting))
        except BpuError:
            return False
        return True

    def _dtypes(self, rules: List[dict]) -> Optional[Dict[str, str]]:
        try:
            configs = self._assigned(rules + self.own_rules)
        except BpuError:
            return None
        return {self.network.name(value): config.dtype for value, config in configs.items()}

    def _assigned(self, rules: List[dict]) -> Dict[str, TensorConfig]:
        graph, placement = self.network.graph, self.network.placement
        configs = assign(graph, placement, rules, self.model)
        refuse_without_integer_form(
            graph, placement, {value: config.dtype for value, config in configs.items()})
        return configs

    def quantized(self, setting: Setting) -> QuantizedGraph:
        """The quantized graph of a setting, with scales from the statistics."""
        configs = self._assigned(self.rules(setting))
        dtypes = {self.network.name(value): config.dtype for value, config in configs.items()}

        def scale_of(name: str) -> tuple:
            if dtypes[name] not in OTHER:
                return self.choice.quantizers[name].scale.item(), True
            return self.choice.scale(name, dtypes[name]), True

        reach = quantization_of(self.model).reach
        return replace(self.network, configs=configs).with_scales(scale_of, reach.of)

    @paused_collector()
    def estimate(self, setting: Setting, march: str) -> Estimate:
        """What the cost model says of a setting: it is lowered, converted and scheduled."""
        conversion = lower_network(self.quantized(setting)).convert()
        _, estimate = compile_network(program_from_module(conversion.result), march)
        return estimate

    def costs(self, march: March) -> SettingCosts:
        """About what settings take, which is quick; :meth:`estimate` says it of one."""
        return SettingCosts(self.network, march)
