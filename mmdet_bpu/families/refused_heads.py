"""Heads of mmdet whose detectors are not deployed, each with the reason."""

_MASKS = 'it gives masks, and only boxes are deployed'
_PROPOSALS = 'it proposes regions for a second stage, and only detectors of one stage are deployed'
_TEXT = 'it scores boxes against a text that is known only at run time'
_BASE = 'it is what other heads are built on and gives no detections'

REASONS = {
    'ATSSVLFusionHead': _TEXT,
    'AnchorFreeHead': _BASE,
    'BoxInstBboxHead': _MASKS,
    'BoxInstMaskHead': _MASKS,
    'CascadeRPNHead': _PROPOSALS,
    'CondInstBboxHead': _MASKS,
    'CondInstMaskHead': _MASKS,
    'DDQDETRHead': 'it chooses distinct queries by non-maximum suppression inside the network',
    'DecoupledSOLOHead': _MASKS,
    'DecoupledSOLOLightHead': _MASKS,
    'EmbeddingRPNHead': _PROPOSALS,
    'GARPNHead': _PROPOSALS,
    'GroundingDINOHead': _TEXT,
    'Mask2FormerHead': _MASKS,
    'MaskFormerHead': _MASKS,
    'RPNHead': _PROPOSALS,
    'RTMDetInsHead': _MASKS,
    'RTMDetInsSepBNHead': _MASKS,
    'SOLOHead': _MASKS,
    'SOLOV2Head': _MASKS,
    'StageCascadeRPNHead': _PROPOSALS,
    'YOLACTHead': _MASKS,
    'YOLACTProtonet': _MASKS,
}
