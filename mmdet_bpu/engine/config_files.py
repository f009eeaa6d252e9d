"""Config files as plain data; quick to import, so that a wrong one is refused at once.

Neither torch nor mmdet is imported until :func:`import_named_modules` is called.
"""
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import get_installed_path, import_modules_from_strings

from mmdet_bpu.engine.foreign_errors import in_one_line
from mmdet_bpu.errors import BpuError


def read_config(config: str) -> Config:
    """The config as plain data, whatever its style: classes become their dotted names.

    Raises:
        BpuError: No such file, or it cannot be read.
    """
    if '::' not in config and not Path(config).is_file():
        raise BpuError(f'config {config} not found; expected a file, or mmdet::FOLDER/NAME.py')
    try:
        cfg = _read_installed(config) if '::' in config else Config.fromfile(
            config, import_custom_modules=False)
        return Config(cfg.to_dict(), cfg_text=cfg.text or config,
                      filename=config.partition('::')[2] or config)
    except (Exception, SystemExit) as error:  # a config is code, and runs while it is read
        raise _unreadable(config, error) from error


def import_named_modules(cfg: Config, config: str) -> None:
    """Import what ``custom_imports`` of a config names.

    Args:
        cfg (Config): As :func:`read_config` gives it.
        config (str): Its name, for the message.

    Raises:
        BpuError: One of them cannot be imported.
    """
    names = cfg.get('custom_imports')
    try:
        if names:
            import_modules_from_strings(**names)
    except (Exception, SystemExit) as error:  # what it imports is code too
        raise _unreadable(config, error) from error


def _unreadable(config: str, error: BaseException) -> BpuError:
    return BpuError(f'config {config} cannot be read: {in_one_line(error)}')


def _read_installed(config: str) -> Config:
    """A config of an installed package as a file that inherits from it sees it, with its scope."""
    from mmengine.hub import get_config  # imports torch
    package, _, path = config.partition('::')
    if not re.match(r'\w+/', path):  # mmengine takes no other folders: legacy_1.x
        return Config.fromfile(str(Path(get_installed_path(package)) / '.mim/configs' / path))
    try:
        return Config.fromstring(f'_base_ = {config!r}\n', '.py')
    except RuntimeError:  # python-style ones are inherited from by import only
        return get_config(config)
