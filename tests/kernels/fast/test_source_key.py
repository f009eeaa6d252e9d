"""Compiled loops are kept under a name that follows every source they may be made from."""
from mmdet_bpu.kernels.fast.source_key import SOURCES, named_by_sources, sources_key
from mmdet_bpu.kernels.fast.vector_machine import run_blocks


def test_the_key_follows_every_source_of_the_folder(tmp_path):
    (tmp_path / 'loops.py').write_text('a = 1\n')
    before = sources_key(tmp_path)
    assert sources_key(tmp_path) == before
    (tmp_path / 'requantize.py').write_text('b = 1\n')
    added = sources_key(tmp_path)
    (tmp_path / 'requantize.py').write_text('b = 2\n')
    assert len({before, added, sources_key(tmp_path)}) == 3


def test_a_compiled_function_is_kept_under_the_key():
    assert run_blocks.py_func.__qualname__ == f'run_blocks_{SOURCES:08x}'

    @named_by_sources
    def loop():
        return 7

    assert loop() == 7 and loop.__qualname__.endswith(f'loop_{SOURCES:08x}')
