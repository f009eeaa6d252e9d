"""Which backend compiles: what a caller names, and what is installed."""
from mmdet_bpu.backends import hbdk4
from mmdet_bpu.errors import BpuError

BACKENDS = ('auto', 'sim', 'hbdk4')


def choose_backend(name: str = 'auto') -> str:
    """Resolve the name of a backend.

    Args:
        name (str): 'auto' takes the vendor's compiler if it is installed, else the simulator.
            Defaults to 'auto'.

    Returns:
        str: 'sim' or 'hbdk4'.

    Raises:
        BpuError: Unknown name, or 'hbdk4' where it is not installed.
    """
    if name not in BACKENDS:
        raise BpuError(f'unknown backend {name!r}: expected one of {", ".join(BACKENDS)}')
    if name == 'auto':
        return 'hbdk4' if hbdk4.available() else 'sim'
    if name == 'hbdk4' and not hbdk4.available():
        raise BpuError(hbdk4.MISSING)
    return name


def require_vendor(what: str) -> None:
    """Refuse what needs the vendor's compiler where it is not installed.

    Raises:
        BpuError: It is not; ``what`` begins the message.
    """
    if not hbdk4.available():
        raise BpuError(f'{what}: {hbdk4.ABSENT}')
