"""Where a run goes on: what ``resume`` means, and what of an epoch is done already."""
from pathlib import Path
from typing import Any, Iterator

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from mmdet_bpu.engine.newest_checkpoint import newest_checkpoint
from mmdet_bpu.engine.weights import read_checkpoint


def resume_newest(cfg: Config) -> None:
    """Go on with the run in ``cfg.work_dir`` if there is one, else begin; in place.

    So one command line begins a run, goes on with it however often it is repeated, and does nothing
    more once it has finished: ``load_from`` says what it begins with and nothing else.
    """
    found = newest_checkpoint(Path(cfg.work_dir), resumable=True)
    cfg.resume = found is not None
    if found is None:
        print_log(f'{cfg.work_dir} holds no checkpoint to resume from: the run begins')
    else:
        cfg.load_from = str(found)


def settle_resume(cfg: Config) -> None:
    """Decide which file to resume from, and take over its seed before samplers are built.

    ``cfg.resume`` with ``cfg.load_from`` is mmengine's own reading: that file is resumed from.
    """
    if not cfg.get('resume'):
        return
    if not cfg.get('load_from'):
        resume_newest(cfg)
    if cfg.resume:
        seed = read_checkpoint(cfg.load_from)['meta'].get('seed')
        if seed is not None:
            cfg.setdefault('randomness', {})
            cfg.randomness.seed = seed


def leave_out_done_batches(loop: Any) -> None:
    """Let an epoch that was resumed inside begin with the batch that comes next.

    mmengine's loop by epochs would train on the whole epoch again. Its batches follow from the seed
    and the epoch, so the first ones are those that were done.

    Args:
        loop (BaseLoop): A train loop; other loops than those by epochs are left as they are.
    """
    if not isinstance(loop, EpochBasedTrainLoop):
        return
    done = loop.iter - loop.epoch * len(loop.dataloader)
    if 0 < done <= len(loop.dataloader):
        loop.dataloader = _Remaining(loop, done)


class _Remaining:
    """A loop's dataloader that once leaves out its first batches, then gives way to it."""

    def __init__(self, loop: EpochBasedTrainLoop, done: int) -> None:
        self.loop, self.dataloader, self.done = loop, loop.dataloader, done

    def __iter__(self) -> Iterator[Any]:
        self.loop.dataloader = self.dataloader
        for index, batch in enumerate(self.dataloader):
            if index >= self.done:
                yield batch

    def __len__(self) -> int:
        return len(self.dataloader)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataloader':  # not there yet, while it is being copied
            raise AttributeError(name)
        return getattr(self.dataloader, name)
