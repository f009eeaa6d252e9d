"""What no later step takes is refused by prepare, with op and site, before anything is calibrated."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import model_report, prepare

SHAPE = (4, 6)


def broken_chain(x):
    """A division of functions of one value, one of which something else reads."""
    a = x.clamp(min=0.1)
    return a / (1 - x).clamp(min=0.1) + torch.topk(a.flatten(1), 24)[0].view(1, 1, 4, 6)


@pytest.mark.parametrize('body, site, message', [
    (lambda x: F.linear(x, x[0, 0]), '/linear.0', 'weight or bias of linear depends on the image'),
    (lambda x: F.conv2d(x, x[:, :, :3, :3]), '/conv2d.0', 'weight or bias of conv2d'),
    (lambda x: x.flatten(1).topk(3)[1] + 1, '/add.0', 'indices can be moved'),
    (broken_chain, '/div.0', 'div of two tensors that are no functions of one tensor'),
], ids=['linear', 'conv', 'indices', 'division'])
def test_an_op_without_an_integer_form_stops_prepare(toy, body, site, message):
    model = toy(lambda self, x: body(x))
    with pytest.raises(BpuError, match=f'{site} cannot run on integers: .*{message}'):
        prepare(model, dict(input_shape=SHAPE))
    assert not hasattr(model, 'quant')


def test_a_sum_that_leaves_int32_is_refused(toy):
    # 70,000 elements along one dimension cannot be split in steps by dimension.
    body = lambda self, x: x[:, 0].exp().flatten(1).sum(1)  # noqa: E731
    rules = [dict(op='exp', dtype='int16')]
    with pytest.raises(BpuError, match='/sum.0 .*the sum of 70000 int16 values does not fit'):
        prepare(toy(body), dict(input_shape=(175, 400), qconfig=rules))
    prepare(toy(body), dict(input_shape=(100, 400), qconfig=rules))


def test_a_product_of_int16_and_int16_is_refused_where_rules_ask_for_it(toy):
    body = lambda self, x: x.exp() @ x.cos().transpose(-1, -2)  # noqa: E731
    rules = [dict(op='exp', dtype='int16'), dict(op='cos', dtype='int16')]
    with pytest.raises(BpuError, match='/matmul.0 .*int16 x int16 .*make one side int8'):
        prepare(toy(body), dict(input_shape=SHAPE, qconfig=rules))
    prepare(toy(body), dict(input_shape=SHAPE, qconfig=rules[:1]))


def test_a_grid_in_int8_is_refused(toy):
    body = lambda self, x: F.grid_sample(  # noqa: E731
        x, self.grid(x).permute(0, 2, 3, 1), align_corners=False)
    rules = [dict(site='grid/*', dtype='int8')]
    with pytest.raises(BpuError, match='grid_sample.0 .*int8 image and an int16 grid, found int8 '
                       'and int8'):
        prepare(toy(body, grid=nn.Conv2d(3, 2, 1)), dict(input_shape=SHAPE, qconfig=rules))


def test_the_template_leaves_one_side_of_a_product_in_int8(toy):

    def body(self, x):
        left, right = self.left(x), self.right(x)
        scores = left @ right.transpose(-1, -2)
        return scores.sum() + F.layer_norm(left, (6, )).sum() + F.layer_norm(right, (6, )).sum()

    model = prepare(toy(body, left=nn.Conv2d(3, 3, 1), right=nn.Conv2d(3, 3, 1)),
                    dict(input_shape=SHAPE))
    rows = {row['site']: row for row in model_report(model)}
    assert rows['left/conv2d.0']['dtype'] == 'int16'
    assert rows['right/conv2d.0']['dtype'] == 'int8'
    assert 'one int16 side only' in rows['right/conv2d.0']['rule']
