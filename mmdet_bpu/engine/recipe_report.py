"""The recipe of each stage of a config as plain facts, and in lines for a person."""
from typing import Any, Dict, List, Mapping, Optional

from mmengine.config import Config

from mmdet_bpu.engine.settings import validate_settings
from mmdet_bpu.engine.stage_hooks import hooks_of_stage
from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.families.config_reading import type_name

EPOCHS, ITERATIONS = 'epochs', 'iterations'
# Of an optimizer, where its class has them; in this order.
OPTIMIZER_FACTS = ('lr', 'weight_decay', 'momentum', 'betas')
# Said by themselves, in words.
SAID = ('type', 'begin', 'end', 'by_epoch')


def recipe_of(cfg: Config, float_cfg: Config) -> Dict[str, Any]:
    """How a stage trains, as plain data.

    Args:
        cfg (Config): A config with a training stage, not completed.
        float_cfg (Config): The same in its float stage, or as it was before it got one.

    Returns:
        dict: ``stage``; ``loop``: type, and how long it runs (``epochs`` or ``iterations``, of the
        calibration ``batches`` and ``observer``); ``optimizer``: type, rate and what else decides a
        step (None where nothing is stepped); ``schedule``: one dict per scheduler; ``hooks``:
        what became of the custom hooks that are not as in float.
    """
    settings = validate_settings(cfg.bpu)
    steps = settings.stage != CALIBRATION
    return dict(
        stage=settings.stage,
        loop=_loop(cfg.get('train_cfg') or {}) if steps else dict(
            type=type_name(cfg.train_cfg), batches=settings.calibration.num_batches,
            observer=settings.calibration.observer),
        optimizer=_optimizer(cfg.get('optim_wrapper')) if steps else None,
        schedule=[_plain(row) for row in _schedulers(cfg)] if steps else [],
        hooks=_changes(float_cfg.get('custom_hooks') or [],
                       hooks_of_stage(cfg.get('custom_hooks') or [], settings.stage)))


def recipe_lines(recipe: Mapping[str, Any]) -> List[str]:
    """A recipe of :func:`recipe_of` for a person, the stage and its loop first."""
    loop, optimizer = dict(recipe['loop']), recipe['optimizer']
    lines = [f'recipe of stage {recipe["stage"]}: {loop.pop("type")}, {_words(loop)}']
    if recipe['stage'] != CALIBRATION:
        lines.append('  optimizer: ' + (
            'none; training needs optim_wrapper' if optimizer is None
            else f'{optimizer["type"]}, ' + _words({
                name: value for name, value in optimizer.items() if name != 'type'})))
        lines.append('  schedule:  ' + ('; '.join(map(_scheduler_words, recipe['schedule']))
                                        or 'a constant rate'))
    lines.append('  hooks:     ' + ('; '.join(recipe['hooks']) or 'as in the config'))
    return lines


def _loop(train_cfg: Mapping) -> Dict[str, Any]:
    """mmengine: without a type, ``by_epoch`` says which of its loops."""
    by_epoch = train_cfg.get('by_epoch', True)
    kind = type_name(train_cfg) or ('EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop')
    if train_cfg.get('max_iters') is not None:
        return dict(type=kind, iterations=train_cfg['max_iters'])
    return dict(type=kind, epochs=train_cfg.get('max_epochs'))


def _optimizer(wrapper: Optional[Mapping]) -> Optional[Dict[str, Any]]:
    optimizer = (wrapper or {}).get('optimizer')
    if not isinstance(optimizer, Mapping):
        return None
    facts = {'type': type_name(optimizer)}
    facts.update({name: optimizer[name] for name in OPTIMIZER_FACTS if name in optimizer})
    for name in ('clip_grad', 'accumulative_counts'):
        if wrapper.get(name):
            facts[name] = wrapper[name]
    groups = wrapper.get('paramwise_cfg')
    if groups:
        facts['groups of parameters'] = groups
    if type_name(wrapper) not in ('', 'OptimWrapper'):
        facts['wrapper'] = type_name(wrapper)
    return _plain(facts)


def _schedulers(cfg: Config) -> List[Mapping]:
    schedulers = cfg.get('param_scheduler') or []
    return list(schedulers.values() if isinstance(schedulers, Mapping) else schedulers)


def _scheduler_words(scheduler: Mapping) -> str:
    unit = EPOCHS if scheduler.get('by_epoch', True) else ITERATIONS
    span = f'{unit} {scheduler.get("begin", 0)} to {scheduler.get("end", "the end")}'
    rest = {name: value for name, value in scheduler.items() if name not in SAID}
    return ', '.join(filter(None, [f'{type_name(scheduler)} in {span}', _words(rest)]))


def _changes(before: List[Mapping], after: List[Mapping]) -> List[str]:
    """What became of hooks that are not the same any more, in words.

    Hooks of one class are paired in their order.
    """
    left, changes = list(after), []
    for hook in before:
        name = type_name(hook)
        found = next((other for other in left if type_name(other) == name), None)
        if found is None:
            changes.append(f'{name} left out')
            continue
        left.remove(found)
        fields = sorted(key for key in {*hook, *found} if hook.get(key) != found.get(key))
        if fields:
            changes.append(f'{name} with ' + ', '.join(
                f'{key} {found[key]}' if key in found else f'no {key}' for key in fields))
    return changes + [f'{type_name(hook)} added' for hook in left]


def _words(facts: Mapping[str, Any]) -> str:
    # A number of epochs reads better before its unit.
    counted = [f'{value} {name}' for name, value in facts.items()
               if name in (EPOCHS, ITERATIONS, 'batches')]
    others = [f'{name} {value:g}' if isinstance(value, float) else f'{name} {value}'
              for name, value in facts.items() if name not in (EPOCHS, ITERATIONS, 'batches')]
    return ', '.join(counted + others)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
