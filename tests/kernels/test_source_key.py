"""Compiled loops are kept under a name that follows every source they may be made from."""
from pathlib import Path

from mmdet_bpu.kernels.fast import vector_machine
from mmdet_bpu.kernels.source_key import named_by_sources, sources_key


def test_the_key_follows_every_source_of_the_folder(tmp_path):
    def key() -> int:
        sources_key.cache_clear()
        return sources_key(tmp_path)

    (tmp_path / 'loops.py').write_text('a = 1\n')
    before = key()
    assert key() == before
    (tmp_path / 'requantize.py').write_text('b = 1\n')
    added = key()
    (tmp_path / 'requantize.py').write_text('b = 2\n')
    assert len({before, added, key()}) == 3


def test_a_compiled_function_is_kept_under_the_key():
    key = sources_key(Path(vector_machine.__file__).parent)
    assert vector_machine.run_blocks.py_func.__qualname__ == f'run_blocks_{key:08x}'

    @named_by_sources
    def loop():
        return 7

    assert loop() == 7
    assert loop.__qualname__.endswith(f'loop_{sources_key(Path(__file__).parent):08x}')
