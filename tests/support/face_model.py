"""A graph with YuNet's input and outputs whose faces are red squares, since no package has YuNet's own weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
STRIDES = (8, 16, 32)
WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
RED = 2  # of the blue, green and red that OpenCV gives


def write_face_model(path: Path) -> Path:
    """Each red cell of 32 x 32 px is a face of that size, with certainty; cells of other strides are none."""
    nodes, outputs = [], []
    weights: list[onnx.TensorProto] = []
    for stride in STRIDES:
        cells = (SIDE // stride) ** 2
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [f"mean_{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for name, width in WIDTHS.items():
            nodes += _branch(name, stride, weights)
            outputs.append(helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, [1, cells, width]))
    order = sorted(outputs, key=lambda each: [*WIDTHS].index(each.name.split("_")[0]))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "faces", [given], order, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    return path


def _branch(name: str, stride: int, weights: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """The nodes from mean colours to one of the outputs, [1, cells, width]."""
    full, width = f"{name}_{stride}", WIDTHS[name]
    kernel, bias = np.zeros((width, 3, 1, 1), np.float32), np.zeros(width, np.float32)
    if width == 1:
        kernel[0, :, 0, 0] = -1
        kernel[0, RED] = 1
        bias[:] = -200 if stride == 32 else -1000
    elif name == "bbox":
        bias[:2] = 0.5  # centre of the cell; exp(0) strides wide and high
    weights += [
        numpy_helper.from_array(kernel, f"kernel_{full}"),
        numpy_helper.from_array(bias, f"bias_{full}"),
        numpy_helper.from_array(np.array([1, -1, width], np.int64), f"shape_{full}"),
    ]
    convolved = helper.make_node("Conv", [f"mean_{stride}", f"kernel_{full}", f"bias_{full}"], [f"conv_{full}"])
    last = f"conv_{full}"
    nodes = [convolved]
    if width == 1:
        nodes.append(helper.make_node("Sigmoid", [last], [last := f"sigmoid_{full}"]))
    nodes.append(helper.make_node("Transpose", [last], [f"rows_{full}"], perm=[0, 2, 3, 1]))
    nodes.append(helper.make_node("Reshape", [f"rows_{full}", f"shape_{full}"], [full]))
    return nodes
