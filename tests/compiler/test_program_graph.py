"""The graph in a report: its parts, edges and places."""
import re
from dataclasses import replace

import pytest

from mmdet_bpu.compiler.compile import compile_network
from mmdet_bpu.compiler.graph_svg import COLUMN, NODE_WIDTH, ROW, WIDEST, graph_svg, layout
from mmdet_bpu.compiler.program_graph import Band, ProgramGraph, bands_of

BLOCK = [f'backbone.{stage}.{block}.conv{number}/conv2d.0'
         for stage in range(2) for block in range(4) for number in range(5)]


def test_an_edge_goes_from_what_makes_a_value_to_each_that_reads_it(detector):
    graph = ProgramGraph(detector)  # stem, inner, block (with stem), wide, tokens, two heads
    assert graph.edges == [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (4, 6)]
    assert graph.depths(Band('all', 0, 7)) == [0, 1, 2, 3, 4, 5, 5]
    assert graph.depths(Band('heads', 5, 2)) == [0, 0]


def test_bands_are_runs_of_one_part_and_cover_everything():
    sites = [*BLOCK, '', 'neck/add.0', 'head.a/mul.0', 'head.b/mul.0']
    bands = bands_of(sites)
    names = [f'backbone.{stage}.{block}' for stage in range(2) for block in range(4)]
    assert [band.name for band in bands] == [*names, 'neck', 'head']
    assert [band.count for band in bands] == [*[5] * 7, 6, 1, 2]  # 6: one has no site
    assert [step for band in bands for step in band.steps] == list(range(len(sites)))


def test_a_part_that_is_small_stays_whole_and_small_neighbours_are_joined():
    assert bands_of(BLOCK[:12]) == [Band('backbone', 0, 12)]
    parts = [f'decoder.{name}/op.0' for name, count in (('norm', 2), ('act', 2), ('ffn', 11))
             for _ in range(count)]
    assert [(band.name, band.count) for band in bands_of(parts)] == [
        ('decoder: norm to act', 4), ('decoder.ffn', 11)]


@pytest.mark.parametrize('sites', [[], ['']])
def test_programs_without_sites_have_bands_too(sites):
    assert bands_of(sites) == [Band('network', 0, 1)] * len(sites)


def test_links_between_bands_lead_forwards_whatever_sites_are_called(maker):
    x = maker.input('image', (1, 4, 4, 3))
    for name in 'abab' * 4:
        x = maker.op('relu', [x], (1, 4, 4, 3), site=f'{name}.0/relu.0')
    graph = ProgramGraph(maker.finish(x))
    assert graph.band_edges() == [(number, number + 1) for number in range(15)]


def test_nobody_stands_on_another_and_readers_stand_below(maker):
    x = maker.input('image', (1, 4, 4, 3))
    wide = [maker.op('relu', [x], (1, 4, 4, 3), site='a/relu.0') for _ in range(WIDEST + 3)]
    last = maker.op('concat', wide, (1, 4, 4, 3), site='a/concat.0')
    graph = ProgramGraph(maker.finish(last))
    where = layout(graph, graph.bands[0])
    places = list(where.places.values())
    assert len(set(places)) == len(places) == WIDEST + 4
    assert max(x for x, _ in places) + NODE_WIDTH <= where.width == WIDEST * COLUMN - 10
    assert places[-1][1] == max(y for _, y in places) == where.height - ROW
    assert all(places[-1][1] > y for _, y in places[:-1])


def test_the_picture_has_every_instruction_with_its_facts(detector):
    network, estimate = compile_network(detector, 'nash-e')
    picture = graph_svg(network.program, estimate)
    titles = re.findall(r'<title>(.*?)</title>', picture, re.DOTALL)
    assert len(titles) == len(detector.instructions)
    assert titles[0].startswith('#0 backbone.0/conv2d.0\nbpu.conv2d: 1x16x16x3 si8, constant 8x3x3x3 si8')
    assert f'{estimate.layers[0].macs:,} MACs' in titles[0]
    assert 'class="op"><title>#4' in picture and 'shade9' in picture


def test_a_program_without_instructions_has_no_picture(detector):
    _, estimate = compile_network(detector, 'nash-e')
    assert graph_svg(replace(detector, instructions=[]), replace(estimate, layers=[])) \
        == '<p>No instructions.</p>'
