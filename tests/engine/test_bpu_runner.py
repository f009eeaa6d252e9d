"""The runner takes a stock detector through its stages."""
import torch


def test_each_stage_starts_from_the_stage_before(trained):
    for stage, epochs in (('float', 2), ('calibration', 1), ('qat', 2)):
        path = trained / f'tiny_{stage}' / f'epoch_{epochs}.pth'
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint['meta']['bpu_stage'] == stage
