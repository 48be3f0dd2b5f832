"""Convolutions with fewer multiplications, against PyTorch's."""

from __future__ import annotations

import concurrent.futures

import pytest
import torch
from torch import nn

from models.tokenizers.winograd import Scratch, WinogradConv2d, leave_uncompiled, use_winograd
from tests.support.narrowing import instance


@pytest.mark.parametrize("batch, height, width", [(1, 32, 32), (3, 8, 12), (1, 4, 4), (1, 6, 8), (1, 132, 128)])
def test_equals_the_direct_form(batch, height, width):
    torch.manual_seed(0)
    direct = nn.Conv2d(256, 24, 3, padding=1)
    x_BCHW = torch.randn(batch, 256, height, width).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = direct(x_BCHW), WinogradConv2d(direct, Scratch())(x_BCHW)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-4)


def test_layers_and_threads_share_buffers():
    """Of other sizes, one after the other, and at the same time: no thread sees another's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 96, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(96, 64, 3, padding=1)).eval()
    images = torch.randn(24, 1, 64, 48, 40).contiguous()
    with torch.no_grad():
        expected = [model(x_BCHW) for x_BCHW in images]
        use_winograd(model)
        with torch.inference_mode():
            model(images[0])
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(torch.no_grad()(model), images))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(found, expected, strict=True))
    assert all(torch.equal(model(images[i]), found[i]) for i in (0, 23))


def test_only_what_gains_is_replaced():
    kept = [
        nn.Conv2d(32, 256, 3, padding=1),
        nn.Conv2d(256, 32, 3, padding=1),
        nn.Conv2d(256, 64, 3, stride=2, padding=1),
        nn.Conv2d(256, 64, 1),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(256, 64, 3),
        nn.Conv2d(256, 64, 3, padding=1, bias=False),
    ]
    model = nn.Sequential(nn.Sequential(nn.Conv2d(256, 64, 3, padding=1)), *kept)
    use_winograd(model)
    assert isinstance(instance(model[0], nn.Sequential)[0], WinogradConv2d)
    assert all(layer is before for layer, before in zip(list(model)[1:], kept, strict=True))


def test_only_what_will_be_compiled_imports_the_compiler():
    """The decorator alone would import it, into every worker."""
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    use_winograd(model)
    assert not hasattr(model[0].forward, "_torchdynamo_disable")
    leave_uncompiled(model)
    assert getattr(model[0].forward, "_torchdynamo_disable", False)
