"""Stock mmdet configs of one-stage and DETR-like detectors, and small input shapes that fit them.

At least one config of every folder that has such a detector, the leanest backbone that the folder
offers for it, and further ones where a head or a backbone differs. Nothing about the models is
changed: only the input is smaller than stock, divisible by what the backbone and neck need and
with as many positions as the detector takes queries from.
"""

SMALL_SHAPE = FPN = (256, 320)  # (height, width), px
STRIDES_OF_128 = (256, 384)
HOURGLASS = (128, 128)  # five halvings of a map of stride 4

# Folder of mmdet's configs -> config -> (height, width) of the input, px.
FOLDERS: dict[str, dict[str, tuple[int, int]]] = {
    'atss': {'atss_r18_fpn_8xb8-amp-lsj-200e_coco': FPN, 'atss_r50_fpn_1x_coco': FPN},
    'autoassign': {'autoassign_r50-caffe_fpn_1x_coco': FPN},
    'centernet': {'centernet_r18_8xb16-crop512-140e_coco': FPN,
                  'centernet_r18-dcnv2_8xb16-crop512-140e_coco': FPN,
                  'centernet-update_r18_fpn_8xb8-amp-lsj-200e_coco': FPN},
    'centripetalnet': {
        'centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco': HOURGLASS},
    'conditional_detr': {'conditional-detr_r50_8xb2-50e_coco': FPN},
    'cornernet': {'cornernet_hourglass104_8xb6-210e-mstest_coco': HOURGLASS},
    'dab_detr': {'dab-detr_r50_8xb2-50e_coco': FPN},
    'ddod': {'ddod_r50_fpn_1x_coco': FPN},
    'ddq': {'ddq-detr-4scale_r50_8xb2-12e_coco': FPN},
    'deformable_detr': {'deformable-detr_r50_16xb2-50e_coco': FPN,
                        'deformable-detr-refine_r50_16xb2-50e_coco': FPN,
                        'deformable-detr-refine-twostage_r50_16xb2-50e_coco': FPN},
    'detr': {'detr_r18_8xb2-500e_coco': FPN, 'detr_r50_8xb2-150e_coco': FPN},
    'dino': {'dino-4scale_r50_8xb2-12e_coco': FPN},
    'dyhead': {'atss_r50_fpn_dyhead_1x_coco': FPN, 'atss_r50-caffe_fpn_dyhead_1x_coco': FPN},
    'efficientnet': {'retinanet_effb3_fpn_8xb4-crop896-1x_coco': FPN},
    'fcos': {'fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco': FPN,
             'fcos_r50-caffe_fpn_gn-head_1x_coco': FPN,
             'fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco': FPN},
    'foveabox': {'fovea_r50_fpn_4xb4-1x_coco': FPN,
                 'fovea_r50_fpn_gn-head-align_4xb4-2x_coco': FPN},
    'fpg': {'retinanet_r50_fpg-chn128_crop640_50e_coco': STRIDES_OF_128},
    'free_anchor': {'freeanchor_r50_fpn_1x_coco': FPN},
    'fsaf': {'fsaf_r50_fpn_1x_coco': FPN},
    'gfl': {'gfl_r50_fpn_1x_coco': FPN},
    'ghm': {'retinanet_r50_fpn_ghm-1x_coco': FPN},
    'guided_anchoring': {'ga-retinanet_r50_fpn_1x_coco': FPN},
    'hrnet': {'fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco': FPN},
    'legacy_1.x': {'retinanet_r50_fpn_1x_coco_v1': FPN, 'ssd300_coco_v1': (300, 300)},
    'libra_rcnn': {'libra-retinanet_r50_fpn_1x_coco': STRIDES_OF_128},
    'nas_fcos': {'nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco': FPN,
                 'nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco': FPN},
    'nas_fpn': {'retinanet_r50_fpn_crop640-50e_coco': FPN,
                'retinanet_r50_nasfpn_crop640-50e_coco': STRIDES_OF_128},
    'objects365': {'retinanet_r50_fpn_1x_objects365v1': FPN,
                   'retinanet_r50-syncbn_fpn_1350k_objects365v1': FPN},
    'openimages': {'retinanet_r50_fpn_32xb2-1x_openimages': FPN,
                   'ssd300_32xb8-36e_openimages': (300, 300)},
    'paa': {'paa_r50_fpn_1x_coco': FPN},
    'pascal_voc': {'retinanet_r50_fpn_1x_voc0712': FPN, 'ssd300_voc0712': (300, 300)},
    'pisa': {'retinanet-r50_fpn_pisa_1x_coco': FPN, 'ssd300_pisa_coco': (300, 300)},
    'pvt': {'retinanet_pvt-t_fpn_1x_coco': FPN, 'retinanet_pvtv2-b0_fpn_1x_coco': FPN},
    'regnet': {'retinanet_regnetx-800MF_fpn_1x_coco': FPN},
    'reppoints': {'reppoints-moment_r50_fpn_1x_coco': FPN,
                  'reppoints-moment_r50_fpn-gn_head-gn_1x_coco': FPN,
                  'reppoints-minmax_r50_fpn-gn_head-gn_1x_coco': FPN,
                  'reppoints-bbox_r50_fpn-gn_head-gn-grid_1x_coco': FPN},
    'resnet_strikes_back': {'retinanet_r50-rsb-pre_fpn_1x_coco': FPN},
    'retinanet': {'retinanet_r18_fpn_1x_coco': FPN, 'retinanet_r50_fpn_1x_coco': FPN,
                  'retinanet_r50-caffe_fpn_1x_coco': FPN, 'retinanet_x101-32x4d_fpn_1x_coco': FPN},
    'rtmdet': {'rtmdet_tiny_8xb32-300e_coco': FPN, 'rtmdet_s_8xb32-300e_coco': FPN,
               'rtmdet_l_swin_b_4xb32-100e_coco': FPN},
    'sabl': {'sabl-retinanet_r50_fpn_1x_coco': FPN, 'sabl-retinanet_r50-gn_fpn_1x_coco': FPN},
    'ssd': {'ssd300_coco': (300, 300), 'ssd512_coco': (512, 512),
            'ssdlite_mobilenetv2-scratch_8xb24-600e_coco': (320, 320)},
    'swin': {'retinanet_swin-t-p4-w7_fpn_1x_coco': FPN},
    'tood': {'tood_r50_fpn_1x_coco': FPN, 'tood_r50_fpn_anchor-based_1x_coco': FPN},
    'v3det': {'fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x': FPN,
              'deformable-detr-refine-twostage_r50_8xb4_sample1e-3_v3det_50e': FPN,
              'dino-4scale_r50_8xb2_sample1e-3_v3det_36e': FPN},
    'vfnet': {'vfnet_r50_fpn_1x_coco': FPN, 'vfnet_res2net-101_fpn_ms-2x_coco': FPN},
    'yolo': {'yolov3_d53_8xb8-320-273e_coco': (320, 320),
             'yolov3_mobilenetv2_8xb24-320-300e_coco': (320, 320)},
    'yolof': {'yolof_r50-c5_8xb8-1x_coco': FPN},
    'yolox': {'yolox_tiny_8xb8-300e_coco': FPN, 'yolox_nano_8xb8-300e_coco': FPN,
              'yolox_s_8xb8-300e_coco': FPN},
}

CONFIGS = {f'mmdet::{folder}/{name}.py': shape for folder, configs in FOLDERS.items()
           for name, shape in configs.items()}
