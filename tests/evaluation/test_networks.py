"""The networks of FID and LPIPS, beside the peers' own with random weights, and files of other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from models.errors import UserError
from models.evaluation.inception import FEATURES, Inception, load_inception, resize_as_tensorflow_1
from models.evaluation.perceptual import LPIPS, _alexnet, _vgg16, load_lpips
from tests.support.images import photo

Network = TypeVar("Network", bound=torch.nn.Module)


def images(count: int, width: int, height: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(photo(width, height, i)) for i in range(count)])).permute(0, 3, 1, 2)


def spread(model: Network) -> Network:
    """Weights and statistics of a size at which a layer that is missing or at another place shows."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.5, 1.5) if value.ndim == 1 else torch.nn.init.kaiming_normal_(value)
        if name.endswith(("bias", "running_mean")):
            torch.nn.init.normal_(value, std=0.1)
        if name.startswith("weights."):
            value.abs_()  # as LPIPS's are
    return model.eval()


@pytest.fixture(scope="module")
def inception() -> Inception:
    return spread(Inception())


def test_resizing_has_tensorflow_s_corners():
    x = torch.tensor([[[[0.0, 3.0, 6.0]]]])
    assert resize_as_tensorflow_1(x, 6)[0, 0, 0].tolist() == [0, 1.5, 3, 4.5, 6, 6]
    assert resize_as_tensorflow_1(x, 2)[0, 0].tolist() == [[0, 4.5], [0, 4.5]]


def test_features_of_fid(inception, tmp_path):
    weights = inception.state_dict()
    torch.save(weights | {"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "fid.pth")
    read = load_inception(tmp_path / "fid.pth")
    assert all(torch.equal(value, weights[name]) for name, value in read.state_dict().items())
    with torch.inference_mode():
        assert read(images(1, 40, 30).float()).shape == (1, FEATURES)


def test_as_torch_fidelity(inception, tmp_path):
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = inception.state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(weights, tmp_path / "fid.pth")
    extractor = theirs.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=tmp_path / "fid.pth")
    with torch.inference_mode():
        for size in ((256, 256), (400, 310)):
            expected = extractor(images(1, *size))[0]
            assert (inception(images(1, *size).float()) - expected).abs().max() < 1e-4 * expected.abs().max()


def write_lpips(folder: Path, model: LPIPS) -> None:
    """As the two files circulate."""
    weights = model.state_dict()
    network = {name: value for name, value in weights.items() if name.startswith("features.")}
    torch.save(network | {"classifier.1.weight": torch.zeros(2, 2)}, folder / "alexnet-owt-7be5be79.pth")
    torch.save({f"lin{i}.model.1.weight": weights[f"weights.{i}"] for i in range(5)}, folder / "alex.pth")


def test_lpips_from_its_two_files(tmp_path):
    model = spread(LPIPS(_alexnet()))
    write_lpips(tmp_path, model)
    a, b = images(2, 64, 48).float() / 255, images(2, 64, 48).float().flip(0) / 255
    read = load_lpips(tmp_path)
    assert torch.equal(read(a, b), model(a, b)) and read(a, b).min() > 1e-3
    assert read(a, a).tolist() == [0, 0]
    first, second = (np.asarray(photo(64, 48, seed)) for seed in (0, 1))
    assert read.distance(first, second) == pytest.approx(read(a, b)[0].item(), rel=1e-5)
    assert torch.allclose(read(a, b), read(b, a))


@pytest.mark.parametrize(("name", "network"), [("alex", _alexnet), ("vgg", _vgg16)])
def test_as_the_package_lpips(tmp_path, name, network):
    lpips = pytest.importorskip("lpips")
    model = spread(LPIPS(network()))
    theirs = lpips.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False)
    weights = model.state_dict()
    layers = [layer for layer in theirs.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    ours = [layer for layer in model.features if isinstance(layer, torch.nn.Conv2d)]
    for layer, own in zip(layers, ours, strict=True):
        layer.load_state_dict(own.state_dict())
    for number, layer in enumerate(theirs.lins):
        layer.model[-1].weight.data = weights[f"weights.{number}"]
    a, b = images(2, 64, 64).float() / 255, images(2, 64, 64).float().flip(0) / 255
    assert torch.allclose(model(a, b), theirs(a, b, normalize=True).flatten(), rtol=1e-4)


def test_other_files_are_one_line(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"--inception .*has no weight Conv2d_1a_3x3.conv.weight"):
        load_inception(tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"--inception .*No such file"):
        load_inception(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"--lpips .*no file there has the weights"):
        load_lpips(tmp_path)
    write_lpips(tmp_path, spread(LPIPS(_alexnet())))
    (tmp_path / "alex.pth").unlink()
    with pytest.raises(UserError, match="linear layers"):
        load_lpips(tmp_path)
