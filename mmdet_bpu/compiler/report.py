"""What is known about a compiled model, as one value; JSON and HTML are made of it."""
from dataclasses import asdict, dataclass, field

from mmdet_bpu.compiler.estimate import ESTIMATE_NOTE, Estimate
from mmdet_bpu.compiler.legality import Finding, summarize
from mmdet_bpu.compiler.input_stage import input_stage_rows
from mmdet_bpu.compiler.published import SOURCE
from mmdet_bpu.compiler.published_errors import published_errors
from mmdet_bpu.compiler.schedule import live_bytes
from mmdet_bpu.program.container import NOTICE
from mmdet_bpu.program.hbm_file import CompiledNetwork
from mmdet_bpu.runtime.input_words import input_words


@dataclass(frozen=True)
class TensorRow:
    """An input or output. Its fields are the columns of its table."""
    name: str
    shape: str
    dtype: str
    scale: float | None
    bytes: int


@dataclass(frozen=True)
class ReportPicture:
    """A test picture with what was found in it.

    Attributes:
        name (str): Of its file, or its number.
        caption (str): How many boxes each model found.
        jpeg (bytes): The drawn picture.
    """
    name: str
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class ReportPictures:
    """Test pictures, or why there are none.

    Attributes:
        pictures (list[ReportPicture]): In the order of the data.
        note (str): What is drawn, or the reason for none.
    """
    pictures: list[ReportPicture] = field(default_factory=list)
    note: str = 'No pictures were asked for.'


@dataclass(frozen=True)
class Report:
    """A compiled network with all that is known of it.

    Attributes:
        network (CompiledNetwork): Program in the order it runs, and memory plan.
        estimate (Estimate): Latency and traffic.
        findings (list[Finding]): Legality findings.
        quantization (list[dict]): One row per quantized tensor, shown as given.
        title (str): Name of the model.
        pictures (ReportPictures): What was found in test pictures.
    """
    network: CompiledNetwork
    estimate: Estimate
    findings: list[Finding]
    quantization: list[dict] = field(default_factory=list)
    title: str = 'model'
    pictures: ReportPictures = ReportPictures()

    notice = NOTICE
    note = ESTIMATE_NOTE

    @property
    def sites(self) -> list[str]:
        """Of each instruction."""
        return [instruction.site for instruction in self.network.program.instructions]

    def live_bytes(self) -> list[int]:
        """Live activation bytes at each step."""
        program = self.network.program
        return live_bytes(program, list(range(len(program.instructions))))

    def inputs(self) -> list[TensorRow]:
        return [self._tensor(name) for name in self.network.program.inputs]

    def outputs(self) -> list[TensorRow]:
        return [self._tensor(name) for name in self.network.program.outputs]

    def input_in_words(self) -> str:
        """What is fed to the network, in a line; '' where its metadata do not say."""
        stage = self.network.program.metadata.get('preprocessing')
        return input_words(stage) if isinstance(stage, dict) else ''

    def finding_counts(self) -> dict[str, int]:
        """Findings of each level."""
        return summarize(self.findings)

    def published_rows(self) -> list[dict]:
        """The vendor's published models, and how far the cost model is off each."""
        return [{'model': row.model.name, 'input': 'x'.join(map(str, row.model.input_shape)),
                 'GOPs': row.model.gops, 'latency (ms)': row.model.latency_ms,
                 'DDR (MB)': round(row.model.ddr_read_mb + row.model.ddr_write_mb, 2),
                 'cost model (ms)': round(row.predicted_ms, 3),
                 'off by (%)': round(100 * row.off, 1),
                 'off by, left out of the fit (%)': round(100 * row.off_left_out, 1)}
                for row in published_errors()]

    def input_stage(self) -> list[dict]:
        """Facts of what happens to a picture before the network."""
        return input_stage_rows(self.network.program.metadata)

    def as_dict(self) -> dict:
        """JSON values.

        Returns:
            dict: 'summary' with the vendor's fields, and 'title', 'notice', 'note', 'march',
            'time by op', 'memory', 'legality', 'input stage', 'contract', 'pictures' (without the pictures
            themselves), 'quantization', 'published'.
        """
        plan = self.network.plan
        return {
            **self.estimate.as_vendor_dict(),
            'title': self.title,
            'notice': self.notice,
            'time by op': [{'op': row.op, 'count': row.count, 'time (us)': round(row.time_us, 1)}
                           for row in self.estimate.by_op()],
            'memory': {
                'arena bytes': plan.arena_bytes,
                'peak live bytes': plan.peak_live_bytes,
                'constant bytes': self.estimate.constant_bytes,
                'live bytes per step': self.live_bytes(),
                'sites': self.sites,
            },
            'legality': {
                'counts': self.finding_counts(),
                'findings': [finding.as_dict() for finding in self.findings],
            },
            'input stage': self.input_stage(),
            'pictures': {
                'note': self.pictures.note,
                'pictures': [{'name': each.name, 'caption': each.caption}
                             for each in self.pictures.pictures],
            },
            'contract': {
                'input stage': self.input_in_words(),
                'inputs': [asdict(row) for row in self.inputs()],
                'outputs': [asdict(row) for row in self.outputs()],
                'metadata': self.network.program.metadata,
            },
            'quantization': self.quantization,
            'published': {'source': SOURCE, 'models': self.published_rows()},
        }

    def _tensor(self, name: str) -> TensorRow:
        kind = self.network.program.values[name].type
        return TensorRow(name, 'x'.join(map(str, kind.shape)), kind.dtype, kind.scale, kind.nbytes)
