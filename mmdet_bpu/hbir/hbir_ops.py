"""Signatures of the operations of the vendor's ``hbir`` dialect: data only.

Source: vendor manual (OpenExplorer for Journey 6), page "HBIR operator reference": the tables of
operands, attributes and results of each operation, in their order. Only these facts are kept.
That an operand may be left out altogether (``~``) is not in those tables; it follows from the
published texts and Python signatures, which give ``bias=None`` and a convolution of two operands.

The notation is read by :func:`mmdet_bpu.hbir.dialect.parse_table`.
"""

SOURCE = 'vendor manual (OpenExplorer J6), HBIR operator reference'

ELEMENT_CLASSES = {
    'any': 'f64 f32 f16 bf16 si8 si16 si32 si64 ui8 ui16 ui32 ui64',
    'float': 'f64 f32 f16 bf16',
    'int': 'si8 si16 si32 si64 ui8 ui16 ui32 ui64',
    'signed': 'si8 si16 si32 si64',
}
"""Names for the sets of element types that the manual repeats."""

EXTRA_ELEMENTS = {'constant': 'i1'}
"""Element types beyond the manual's list: a constant mask for the i1 operand of hbir.where."""

REQUIRED_ATTRIBUTES = {
    'constant': 'values', 'concat': 'dim', 'transpose': 'dims', 'reshape': 'shape', 'topk': 'k',
    'tile': 'multiplies',
}
"""Attributes without which an operation says nothing; published texts leave others out."""

TABLE = '''
abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor identity log neg relu
    reciprocal rle rsqrt sigmoid sign sin sinh sqrt swish tan tanh = input?: any -> output?: any
add div max min mul pow sub = lhs?: any, rhs?: any -> output?: any
avg_pool max_pool = input?: float -> output?: float {kernel: i64s, stride: i64s, pad: i64s,
    dilation: i64s, ceilMode: bool}
batchnorm = input?: any, mean?: any[1], var?: any[1], weight?~: any[1], bias?~: any[1] ->
    output?: any {eps: f64}
bev_pool_v2 = depth?: any, feat?: any, ranks_depth?: int, ranks_feat?: int, ranks_bev?: int,
    interval_starts?: int, interval_lengths?: int -> output?: any {bev_feat_shape: i64s}
bitshift = input: si8|si16|si32, rshift: si8[1] -> output: si8|si16|si32
bitwise_and bitwise_or bitwise_xor = lhs?: si8|si16, rhs?: si8|si16 -> output?: si8|si16
bitwise_not = input?: si8|si16 -> output?: si8|si16
cast_type = input?: any -> output: any {forceSaturate: bool}
clip = input: any -> output?: any {min: number, max: number}
concat stack = inputs?*: any -> output?: any {dim: i64}
constant = -> output: any {values: elements}
conv2d = input?: float, weight?: float[4], bias?~: float[1] -> output?: float {stride: i64s[2],
    pad: i64s[4], dilation: i64s[2], groupNum: i64}
conv3d = input?: float, weight?: float[5], bias?~: float[1] -> output?: float {stride: i64s[3],
    pad: i64s[6], dilation: i64s[3], groupNum: i64}
conv = input?: float, weight?: float, bias?~: float[1] -> output?: float {stride: i64s,
    pad: i64s, dilation: i64s, groupNum: i64, channelLast: bool}
convtranspose = input?: float, weight?: float, bias~: float[1] -> output?: float {stride: i64s,
    pad: i64s, dilation: i64s, groupNum: i64, illegalWeight: bool}
cumsum = input?: any -> output?: any {axis: i64, exclusive: i64, reverse: i64}
custom = inputs*: any -> outputs*: any {srcPath: str, entryFuncName: str, includeDirs: str,
    libraryDirs: str, extraCompileArgs: str, extraLinkArgs: str, runtimeLibraryDirs: str}
deform_conv2d = input?: float, weight?: float[4], offset?: float, mask?: float, bias?~: float[1]
    -> output?: float {stride: i64s[2], pad: i64s[4], dilation: i64s[2], groupNum: i64,
    offsetGroupNum: i64, useMask: bool}
dpp = inputs?*: any -> boxData?: any {anchors: i64s, anchorNum: i64s, filterThreshold: i64,
    nmsThreshold: i64, nmsMargin: i64, seed: i64, useClipping: i64s, stride: i64s,
    clsOffset: i64s, imageSize: i64s, inputShift: i64, legacyMode: bool, useBpuFilter: bool,
    maxBoxNum: i64}
dynamic_slice = input?: any, starts?: signed[1], ends?: signed[1], axes?: signed[1],
    steps?: signed[1] -> output?: any
equal greater_equal greater less_equal less = lhs?: any, rhs?: any -> output?: i1
fake_cast = input?: f32|f16 -> output: f32|f16 {dtype: type}
filter = input: any -> maxValue?: any, maxIndex?: signed, filterCoord?: signed, filterData?: any
    {channelBegin: i64, channelEnd: i64, threshold: f64}
flip = input?: any -> output?: any {dims: i64s}
fpp = inputs?*: any -> boxData?: any {anchors: i64s, anchorNum: i64s, filterThreshold: i64,
    nmsThreshold: i64, nmsMargin: i64, seed: i64, headerPadSize: i64, dataChannel: i64s,
    useClipping: i64s, stride: i64s, clsOffset: i64s, imageSize: i64s, inputShift: i64,
    legacyMode: bool, maxBoxNum: i64, dataRank: i64}
gelu = input?: any -> output?: any {approximate: #GeluApproximateMode}
gather_elements = input?: any, indices?: int -> output?: any {dim: i64}
gather_nd = input?: any, indices?: int -> output: any {batchDim: i64}
grid_sample = input?: any, grid?: any -> output?: any {mode: #InterpolationMode,
    expansionMode: #ExpansionMode, alignCorner: bool, padValue: number}
index = input?: any, index?: int -> output?: any {dim: i64}
layernorm = input?: any, weight?~: any, bias?~: any -> output?: any {dims: i64s, eps: f64}
leaky_relu = input: any -> output?: any {slop: f64}
linear = input?: float, weight?: float[2], bias?~: float[1] -> output: float
log_softmax = input: any -> output?: any {dim: i64}
logical_and logical_or logical_xor = lhs?: f16|si8|si16, rhs?: f16|si8|si16 -> output?: i1
logical_not = input?: f16|si8|si16 -> output?: i1
masked_select = input?: any, mask?: i1 -> output?: any
matmul = lhs?: float, rhs?: float -> output: float
mod = lhs?: any, rhs?: any -> output?: any {sameSignAsDividend: bool}
nan_to_num = input?: float -> output?: float {nan: f64, posinf: f64, neginf: f64}
nms = boxes?: any, scores?: any -> indices?: si64 {mode: #BoxTypeMode, iouThreshold: f64,
    scoreThreshold: f64, maxOutputBoxesPerClass: i64}
nonzero = input?: any -> output?: signed
pad = input?: any -> output?: any {begin: i64s, end: i64s, expansionMode: #ExpansionMode,
    padValue: number, foldable: bool}
point_pillar_preprocess = points?: any -> voxels?: any, coords?: int {pcRanges: f64s,
    normRanges: f64s, voxelSizes: f64s, maxVoxelNum: i64, maxPointsPerVoxel: i64,
    normDims: i64s}
point_pillar_scatter = voxels?: any, coords?: int -> output?: any {outShape: i64s[4]}
prelu = input?: any, slope?: any -> output?: any
reduce_all = input?: f64|f32|f16|bf16|si8|si16|si32|si64 -> output?: i1 {dims: i64s,
    keepDim: bool}
reduce_argmax reduce_argmin = input?: any -> output?: int {dims: i64s, keepDim: bool}
reduce_max reduce_mean reduce_min reduce_sum = input?: any -> output?: any {dims: i64s,
    keepDim: bool}
reshape = input?: any -> output?: any {shape: i64s, foldable: bool}
resize2d = input?: any -> output?: any {ratio: f64s[2], size: i64s[2], step: f64s[2],
    initialOffset: f64s[2], mode: #InterpolationMode, expansionMode: #ExpansionMode,
    padValue: number}
roi_align = inputs?*: any -> output: any {shape: i64s, featureStrides: i64s, samplingRatio: i64,
    interpolateMode: str, canonicalBoxSize: i64, canonicalLevel: i64, boxClipRatio: f64s[4]}
roll = input?: any -> output?: any {shifts: i64s, dims: i64s}
round = input?: any -> output?: any {decimals: i64}
rpp_v2 = bbox_data?: any, bbox_score?: float, bbox_deltas?: float -> int_output?: any,
    float_output?: any {original_img_h: i64, original_img_w: i64, nms_threshold: f64,
    score_threshold: f64, class_number: i64, nms_top_n: i64, bbox_delta_mean: f64s,
    bbox_delta_std: f64s, image_size_fixed: bool}
scatter_elements = data?: any, indices?: int, updates?: any -> output?: any {axis: i64,
    scatterReduceMode: #ScatterReduceMode}
scatter_nd = data: any, indices: int, updates: any -> output: any
    {scatterReduceMode: #ScatterReduceMode}
select = input?: any -> output?: any {dim: i64, index: i64}
slice = input?: any -> output?: any {begin: i64s, end: i64s, step: i64s, foldable: bool}
slice_scatter = input?: any, src?: any -> output?: any {dim: i64, start: i64, end: i64,
    step: i64}
softmax = input?: any -> output?: any {dim: i64}
softplus = input?: any -> output?: any {beta: f64, threshold: f64}
sort = input?: any -> values?: any, indices?: signed {dim: i64, descending: bool, stable: bool}
tile = input?: any -> output?: any {multiplies: i64s}
topk = input?: any -> values?: any, indices?: signed {k: i64, dim: i64, largest: bool,
    sorted: bool}
transpose = input: any -> output: any {dims: i64s}
warp = input?: any, move?: any -> output?: any {mode: #InterpolationMode,
    expansionMode: #ExpansionMode, padValue: number}
where = condition?: i1, lhs?: any, rhs?: any -> output?: any
'''
