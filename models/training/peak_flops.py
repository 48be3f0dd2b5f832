"""The hardware's peak in floating-point operations a second, of which a run reports its share."""

from __future__ import annotations

import time

import torch

# Dense 16-bit operations a second, from the makers' data sheets (without sparsity).
GPUS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
SIDES = 256, 2048  # of the matrices that are multiplied to measure other hardware: from, to
LONG_ENOUGH_S = 0.02


def peak_flops(device: torch.device, precision: str) -> float:
    """Operations a second: of a known GPU in 16 bits from GPUS, else measured."""
    if device.type == "cuda" and precision != "float32":
        name = torch.cuda.get_device_name(device)
        for part, flops in GPUS.items():
            if part in name:
                return flops
    return measured_flops(device, precision)


def measured_flops(device: torch.device, precision: str) -> float:
    """Operations a second of the fastest of four products of matrices, two for each multiply-add.

    The matrices grow until a product takes LONG_ENOUGH_S: a CPU without bfloat16 takes minutes for the largest.
    """
    side = SIDES[0]
    while (best_s := _fastest_product_s(side, device, precision)) < LONG_ENOUGH_S and side < SIDES[1]:
        side *= 2
    return 2 * side**3 / best_s


def _fastest_product_s(side: int, device: torch.device, precision: str) -> float:
    a = torch.ones(side, side, dtype=getattr(torch, precision), device=device)
    best_s = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - started)
    return best_s
