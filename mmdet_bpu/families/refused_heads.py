"""Heads of mmdet whose detectors are not deployed, each with the reason."""

MASKS = 'it predicts masks, and only boxes can be deployed'
_PROPOSALS = 'it proposes regions for a second stage, and only detectors of one stage are deployed'
TEXT = 'it compares image features with those of a text, and a network here has one image as input'
_BASE = 'it is what other heads are built on and gives no detections'

REASONS = {
    'ATSSVLFusionHead': TEXT,
    'AnchorFreeHead': _BASE,
    'BoxInstBboxHead': MASKS,
    'BoxInstMaskHead': MASKS,
    'CascadeRPNHead': _PROPOSALS,
    'CondInstBboxHead': MASKS,
    'CondInstMaskHead': MASKS,
    'DDQDETRHead': 'it chooses distinct queries by non-maximum suppression inside the network',
    'DecoupledSOLOHead': MASKS,
    'DecoupledSOLOLightHead': MASKS,
    'EmbeddingRPNHead': _PROPOSALS,
    'GARPNHead': _PROPOSALS,
    'GroundingDINOHead': TEXT,
    'Mask2FormerHead': MASKS,
    'MaskFormerHead': MASKS,
    'RPNHead': _PROPOSALS,
    'RTMDetInsHead': MASKS,
    'RTMDetInsSepBNHead': MASKS,
    'SOLOHead': MASKS,
    'SOLOV2Head': MASKS,
    'StageCascadeRPNHead': _PROPOSALS,
    'YOLACTHead': MASKS,
    'YOLACTProtonet': MASKS,
}
