"""A quantized graph as plain data under public names, for checkpoints, and its way back.

Values are named by their site: module path and call, as captured. Keys of calls hold code lines,
which change with every release of mmdet, and are never saved.
"""
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import QuantizedGraph, RuleSource, TensorConfig

VERSION = 1
KEY = 'bpu_quantized'
"""Where a checkpoint keeps it."""


def _structure(quantized: QuantizedGraph) -> List[dict]:
    """One row per value that depends on the image, in order: site, op, shape, role."""
    graph = quantized.graph
    rows = [dict(site=quantized.site_of(name), op='input', shape=list(graph.values[name].shape),
                 role=quantized.placement.kinds[name].value) for name in graph.inputs]
    for op in graph.ops:
        rows.append(dict(site=op.site, op=op.params.get('fn', op.kind),
                         shape=list(graph.values[op.output].shape),
                         role=quantized.placement.kinds[op.output].value))
    return rows


def _fingerprint(networks: Sequence[dict], inputs: Mapping[str, Any]) -> str:
    """SHA-256 of structure, shapes and input stage."""
    parts = [dict(name=n['name'], values=n['values'], outputs=n['outputs']) for n in networks]
    text = json.dumps([parts, dict(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(networks: Sequence[QuantizedGraph], folded: Sequence[Sequence[str]],
             inputs: Mapping[str, Any], versions: Mapping[str, str]) -> Dict[str, Any]:
    """Plain data of the networks of a detector.

    Args:
        networks (Sequence[QuantizedGraph]): One, or several that the host runs in turn.
        folded (Sequence): Paths of (convolution, batch norm) pairs that were folded.
        inputs (Mapping): The input stage: shape, colour order.
        versions (Mapping): Of the packages that make up the structure.
    """
    plain = []
    for number, network in enumerate(networks):
        configs = []
        for value in network.own_values():
            config = network.configs[value]
            configs.append(dict(
                site=network.site_of(value), quantizer=network.name(value), dtype=config.dtype,
                rule=config.rule, source=config.source.value, observer=config.observer,
                scale=config.scale))
        plain.append(dict(
            name=f'network_{number}', values=_structure(network), configs=configs,
            weight_observers=dict(network.weight_observers),
            outputs=[[name, network.site_of(value)] for name, value in zip(
                network.graph.output_names, network.graph.outputs)]))
    return dict(version=VERSION, networks=plain, folded=[list(pair) for pair in folded],
                rules=[dict(rule) for network in networks[:1] for rule in network.rules],
                inputs=dict(inputs), versions=dict(versions),
                fingerprint=_fingerprint(plain, inputs))


@dataclass(frozen=True)
class SavedGraph:
    """What a checkpoint says of the quantized graph that it was made with.

    Args:
        plain (dict): See :func:`to_plain`.
        path (str): The file, for messages.
    """
    plain: Dict[str, Any]
    path: str

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], path: str) -> Optional['SavedGraph']:
        """The saved graph of a checkpoint; None for one of version 0.1, which has none.

        Raises:
            BpuError: It is of a version that is not known here, or damaged.
        """
        plain = checkpoint.get(KEY)
        if plain is None:
            return None
        found = plain.get('version') if isinstance(plain, Mapping) else None
        if found != VERSION:
            raise BpuError(f'checkpoint {path}: its quantized graph is of version {found}, this '
                           f'mmdet_bpu reads {VERSION}; calibrate again')
        missing = {'networks', 'folded', 'rules', 'inputs', 'versions', 'fingerprint'} - set(plain)
        if missing or plain['fingerprint'] != _fingerprint(plain['networks'], plain['inputs']):
            raise BpuError(f'checkpoint {path}: its quantized graph is damaged; calibrate again')
        return cls(dict(plain), path)

    @property
    def folded(self) -> List[Sequence[str]]:
        """Paths of (convolution, batch norm) pairs that were folded."""
        return self.plain['folded']

    def match(self, networks: Sequence[QuantizedGraph], inputs: Mapping[str, Any],
              versions: Mapping[str, str], decisions: bool = True) -> None:
        """Take the saved decisions over into networks of equal structure, in place.

        Args:
            networks (Sequence[QuantizedGraph]): Of the model as it is.
            inputs (Mapping), versions (Mapping): See :func:`to_plain`.
            decisions (bool): Whether the rules must be the saved ones, and what followed from them
                is taken over. Defaults to True.

        Raises:
            BpuError: The structure, the input stage or the user's rules are others; the first
                difference is named.
        """
        saved = self.plain
        for name in {**saved['inputs'], **inputs}:
            before, now = saved['inputs'].get(name), inputs.get(name)
            if _listed(before) != _listed(now):
                self._refuse(f'{name} was {before}, the config says {now}')
        if len(saved['networks']) != len(networks):
            self._refuse(f'it has {len(saved["networks"])} networks, this model {len(networks)}')
        for plain, network in zip(saved['networks'], networks):
            self._match_structure(plain, network, versions)
            if not decisions:
                continue
            rules = [dict(rule) for rule in network.rules]
            if saved['rules'] != rules:
                self._refuse(f'bpu.qconfig was {saved["rules"]}, the config says {rules}')
            self._take_configs(plain, network)

    def _match_structure(self, plain: dict, network: QuantizedGraph,
                         versions: Mapping[str, str]) -> None:
        rows = _structure(network)
        for before, now in zip(plain['values'], rows):
            if before == now:
                continue
            changed = [f'{key} {before[key]} -> {now[key]}' for key in before
                       if before[key] != now[key]]
            self._refuse(f'it first differs at {before["site"]}: {", ".join(changed)}'
                         f'{self._other_versions(versions)}')
        if len(plain['values']) != len(rows):
            longer = plain['values'] if len(plain['values']) > len(rows) else rows
            self._refuse(f'{longer[min(len(plain["values"]), len(rows))]["site"]} is in '
                         f'{"the checkpoint" if longer is plain["values"] else "the model"} only'
                         f'{self._other_versions(versions)}')
        outputs = [[name, network.site_of(value)] for name, value in zip(
            network.graph.output_names, network.graph.outputs)]
        for before, now in zip(plain['outputs'], outputs):
            if list(before) != now:
                self._refuse(f'output {before[0]} was {before[1]}, now {now[0]} is {now[1]}')

    def _take_configs(self, plain: dict, network: QuantizedGraph) -> None:
        for row, value in zip(plain['configs'], network.own_values()):
            if row['quantizer'] != network.name(value):
                self._refuse(f'{row["site"]} shared the scale of {row["quantizer"]}, now that of '
                             f'{network.name(value)}')
            network.configs[value] = TensorConfig(
                row['dtype'], row['rule'], RuleSource(row['source']), row['observer'],
                row['scale'])
        # A checkpoint that does not say has the config's.
        network.weight_observers = plain.get('weight_observers', network.weight_observers)

    def _other_versions(self, versions: Mapping[str, str]) -> str:
        changed = [f'{name} {self.plain["versions"].get(name)} -> {found}'
                   for name, found in versions.items()
                   if self.plain['versions'].get(name) != found]
        return f' (made with other versions: {", ".join(changed)})' if changed else ''

    def _refuse(self, difference: str) -> None:
        raise BpuError(f'checkpoint {self.path} does not fit this config: {difference}. Restore '
                       'what has changed, or calibrate again')


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value
