"""What an artefact says about its input and its outputs, so that a board's CPU can serve it."""
from typing import Any, Dict, List, Mapping, Optional, Sequence

from mmengine.config import Config
from torch import nn

from mmdet_bpu.compiler.march import DEFAULT_MARCH, get_march
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detr import DETR
from mmdet_bpu.families.normalisation import normalisation
from mmdet_bpu.families.output_tree import Tree, leaves, read_tree
from mmdet_bpu.families.picture_format import agreed_camera, color_order
from mmdet_bpu.families.picture_resize import picture_resize
from mmdet_bpu.runtime.decoders import families, load_decoder
from mmdet_bpu.runtime.facts import COMMON, check_facts


def preprocessing(cfg: Config) -> Dict[str, Any]:
    """Who resizes and how, the colour order, and the normalisation.

    Args:
        cfg (Config): A config with a stage, completed or not.

    Returns:
        dict: ``resize`` (see :meth:`mmdet_bpu.families.picture_resize.PictureResize.as_contract`),
        ``color_order`` of the tensor, ``mean`` and ``std`` per channel of that order, in words how
        the integer image is made and ``by`` whom, and where the network takes what a ``camera``
        gives, its ``format``, ``range`` and ``matrix`` and ``by`` whom it is converted.
    """
    bpu = cfg.get('bpu') or {}
    mean, std = normalisation(cfg)
    resize = picture_resize(cfg, bpu.get('input_shape'), bpu.get('resize'))
    camera = agreed_camera(cfg)
    converted = {} if camera is None else dict(camera=dict(camera.camera, by='network'))
    return dict(
        resize=resize.as_contract(),
        color_order=color_order(cfg),
        mean=mean,
        std=std,
        by='host' if camera is None else 'network',
        formula='int8 = clamp(round_half_even((uint8 - mean) / std / scale), -128, 127), '
        'in float32',
        **converted)


def converted_by_host(metadata: Mapping[str, Any]) -> Dict[str, Any]:
    """The contract of an artefact whose network has no conversion: the host does a camera's too.

    Args:
        metadata (Mapping): A contract; not changed.
    """
    stage = metadata.get('preprocessing') or {}
    if stage.get('camera') is None:
        return dict(metadata)
    return dict(metadata, preprocessing=dict(
        stage, by='host', camera=dict(stage['camera'], by='host')))


def deploy_metadata(cfg: Config, model: nn.Module, output_tree: Tree,
                    class_names: Optional[List[str]] = None) -> Dict[str, Any]:
    """Metadata of the integer module.

    Args:
        cfg (Config): Completed config.
        model (nn.Module): The detector that it built, float or prepared.
        output_tree (Tree): Nesting of the deployed outputs.
        class_names (list[str], optional): Defaults to none.

    Returns:
        dict: ``preprocessing``; ``postprocessing``, the class of the head and the contract of its
        family; ``outputs`` and their nesting ``output_tree``; ``classes``; ``march``; and
        ``host_steps`` where the march leaves to the host what others can do.
    """
    march = get_march(cfg.bpu.get('march', DEFAULT_MARCH))
    left = dict(host_steps=list(march.host_steps)) if march.host_steps else {}
    return dict(
        preprocessing=preprocessing(cfg),
        postprocessing=dict(FAMILIES.of(model).contract(model, cfg), by='host',
                            head=type(model.bbox_head).__name__),
        outputs=[dict(name=name) for name in leaves(output_tree)],
        output_tree=output_tree,
        classes=list(class_names or []),
        march=march.name,
        **left)


def check_decoding(metadata: Mapping[str, Any]) -> None:
    """Read the decoding of a contract as a host will, where there is a decoder for its family.

    Raises:
        BpuError: A fact is not of its kind, as a threshold that is NaN.
    """
    facts = metadata['postprocessing']
    if facts['family'] in families():
        check_facts(facts, {**COMMON, **load_decoder(facts['family']).FACTS})


def decoding_in(metadata: Mapping[str, Any]) -> Dict[str, Any]:
    """How an artefact's outputs are decoded; empty where its metadata do not say.

    Version 0.1 made artefacts of Deformable DETR only and did not name the family.

    Raises:
        BpuError: They say it in another form.
    """
    decoding = metadata.get('postprocessing') or {}
    if not isinstance(decoding, dict):
        raise BpuError(f'artefact: expected a table as postprocessing in its metadata, found '
                       f'{str(decoding)[:80]}')
    decoding = dict(decoding)
    if 'scores' in decoding:
        decoding.setdefault('family', DETR.name)
    return decoding


def output_tree_in(metadata: Mapping[str, Any], names: Sequence[str]) -> Tree:
    """Nesting of an artefact's outputs.

    Without ``output_tree`` (version 0.1) the outputs are one list: as ``outputs`` has them, else as
    they come.

    Args:
        metadata (Mapping): The artefact's.
        names (Sequence[str]): Of its outputs.

    Raises:
        BpuError: It names outputs that there are not.
    """
    tree = metadata.get('output_tree')
    if tree is None:
        stated = metadata.get('outputs') or names
        tree = [entry.get('name') if isinstance(entry, dict) else entry
                for entry in stated] if isinstance(stated, (list, tuple)) else stated
    return read_tree(tree, names)
