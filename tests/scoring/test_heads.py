"""Heads on embeddings: linear layers in safetensors, graphs of ONNX, and files that are wrong."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import UserError
from models.scoring.heads import load_head

WIDTH = 16
EMBEDDINGS = np.random.RandomState(0).standard_normal((5, WIDTH)).astype(np.float16)


def layers(*widths: int) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


def test_a_linear_head(tmp_path):
    linear = torch.nn.Linear(WIDTH, 1)
    save_file(linear.state_dict(), tmp_path / "head.safetensors")
    expected = linear(torch.from_numpy(EMBEDDINGS).float())[:, 0].tolist()
    assert load_head(tmp_path / "head.safetensors", WIDTH)(EMBEDDINGS) == pytest.approx(expected, abs=1e-6)


def test_layers_are_ordered_by_number(tmp_path):
    """As those of LAION's aesthetic predictor, between which dropout has numbers of its own."""
    network = layers(WIDTH, *[8] * 10, 1)
    state = {
        f"layers.{2 * int(name.split('.')[0])}.{name.split('.')[1]}": w for name, w in network.state_dict().items()
    }
    save_file(state, tmp_path / "head.safetensors")
    expected = network(torch.from_numpy(EMBEDDINGS).float())[:, 0].tolist()
    assert load_head(tmp_path / "head.safetensors", WIDTH)(EMBEDDINGS) == pytest.approx(expected, abs=1e-6)


def test_activations_of_the_metadata(tmp_path):
    network = layers(WIDTH, 8, 1)
    save_file(network.state_dict(), tmp_path / "head.safetensors", {"activation": "relu", "after": "sigmoid"})
    hidden = torch.relu(network[0](torch.from_numpy(EMBEDDINGS).float()))
    expected = torch.sigmoid(network[1](hidden))[:, 0].tolist()
    assert load_head(tmp_path / "head.safetensors", WIDTH)(EMBEDDINGS) == pytest.approx(expected, abs=1e-6)


def test_a_score_does_not_depend_on_the_others(tmp_path):
    save_file(layers(WIDTH, 64, 1).state_dict(), tmp_path / "head.safetensors")
    head = load_head(tmp_path / "head.safetensors", WIDTH)
    assert head(EMBEDDINGS).tolist() == [head(row[None])[0] for row in EMBEDDINGS]


@pytest.mark.parametrize(
    ("widths", "metadata", "said"),
    [
        ((8, 1), {}, r"a layer is \[1, 8\] after 16 numbers"),
        ((WIDTH, 2), {}, "does not end in one number"),
        ((WIDTH, 1), {"after": "swish"}, "activation swish; known are none, relu, gelu, sigmoid"),
    ],
)
def test_heads_that_do_not_fit(tmp_path, widths, metadata, said):
    save_file(layers(*widths).state_dict(), tmp_path / "head.safetensors", metadata)
    with pytest.raises(UserError, match=f"^--head .*{said}"):
        load_head(tmp_path / "head.safetensors", WIDTH)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("head.safetensors", b"none", "cannot be read"),
        ("head.pt", b"", "is neither .safetensors nor .onnx"),
        ("missing.onnx", None, "there is no such file"),
    ],
)
def test_files_that_hold_no_head(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^--head .*{said}"):
        load_head(tmp_path / name, WIDTH)


def onnx_linear(path, width: int, outputs: int) -> torch.nn.Linear:
    onnx = pytest.importorskip("onnx", reason="writes the graphs of these tests")
    pytest.importorskip("onnxruntime", reason="needs the extra `scores`")
    linear = torch.nn.Linear(width, outputs)
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    values = {"w": linear.weight, "b": linear.bias}
    tensors = [onnx.numpy_helper.from_array(value.detach().numpy(), name) for name, value in values.items()]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", size])
        for name, size in (("x", width), ("y", outputs))
    ]
    graph = onnx.helper.make_graph([node], "head", ports[:1], ports[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return linear


def test_onnx(tmp_path):
    linear = onnx_linear(tmp_path / "head.onnx", WIDTH, 1)
    expected = linear(torch.from_numpy(EMBEDDINGS).float())[:, 0].tolist()
    assert load_head(tmp_path / "head.onnx", WIDTH)(EMBEDDINGS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("width", "outputs", "said"), [(8, 1, "does not take 16 numbers"), (WIDTH, 2, "gives 2 numbers")]
)
def test_onnx_that_does_not_fit(tmp_path, width, outputs, said):
    onnx_linear(tmp_path / "head.onnx", width, outputs)
    with pytest.raises(UserError, match=f"^--head .*{said}") as error:
        load_head(tmp_path / "head.onnx", WIDTH)
    assert "\n" not in str(error.value)


def test_damaged_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `scores`")
    (tmp_path / "head.onnx").write_bytes(b"none")
    with pytest.raises(UserError, match=r"^--head .*cannot be read"):
        load_head(tmp_path / "head.onnx", WIDTH)


def test_without_onnxruntime(tmp_path, monkeypatch):
    (tmp_path / "head.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install '.\[scores\]'"):
        load_head(tmp_path / "head.onnx", WIDTH)
