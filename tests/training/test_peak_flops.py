"""The peak of the hardware: GPUs by their names, other hardware by measuring a product of known size."""

from __future__ import annotations

import itertools

import pytest
import torch

from models.training import peak_flops
from models.training.peak_flops import GPUS, SIDES, measured_flops


def test_a_product_counts_two_operations_for_each_multiply_add(monkeypatch):
    """On a clock on which each product takes half a second."""
    ticks = itertools.count()
    monkeypatch.setattr(peak_flops.time, "perf_counter", lambda: next(ticks) * 0.5)
    assert measured_flops(torch.device("cpu"), "float32") == 2 * SIDES[0] ** 3 / 0.5


def test_the_fastest_product_counts(monkeypatch):
    times = iter([0.0, 4.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0])
    monkeypatch.setattr(peak_flops.time, "perf_counter", lambda: next(times))
    assert measured_flops(torch.device("cpu"), "float32") == 2 * SIDES[0] ** 3


@pytest.mark.parametrize(
    "name, flops",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Tesla T4", 65e12),
    ],
)
def test_a_gpu_is_known_by_its_name(monkeypatch, name, flops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops.peak_flops(torch.device("cuda"), "bfloat16") == flops


@pytest.mark.parametrize(
    "device, precision, name",
    [("cuda", "float32", "NVIDIA H100"), ("cuda", "bfloat16", "an unknown one"), ("cpu", "bfloat16", "NVIDIA H100")],
)
def test_everything_else_is_measured(monkeypatch, device, precision, name):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(peak_flops, "measured_flops", lambda device, precision: 1.0)
    assert peak_flops.peak_flops(torch.device(device), precision) == 1.0 not in GPUS.values()
