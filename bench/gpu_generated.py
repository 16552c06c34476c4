"""What the CUDA kernels made for a pattern cost: seconds to compile by NVRTC, size, registers, spills.

    python -m sparsemeta.bench.gpu_generated            # no GPU is needed; minutes, all of it on one core
"""

from __future__ import annotations

import time

import torch

import sparsemeta as sm
from sparsemeta.backends import cuda, cuda_compile, cuda_table
from sparsemeta.ops.conv import Conv

from .gpu_resources import usage

GPU = "sm_90"
LAYERS = [(8, 0.8), (16, 0.9), (32, 0.9), (160, 0.98), (64, 0.95), (64, 0.9), (64, 0.8)]  # channels, sparsity


def main() -> None:
    """Compile a forward pass of each layer: 42x42, 3x3, from as many channels to as many."""
    for channels, sparsity in LAYERS:
        drawn = torch.rand(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0))
        pattern = sm.Pattern.from_mask(drawn < 1 - sparsity)
        conv = Conv.make(pattern, 1, 1, 1, 1, "cuda")
        pixels, _ = cuda_table.pixels_of(channels)
        with cuda.emulation():
            device = torch.device("cpu")
            source = cuda_table.one_table(cuda.FORWARD, conv, (42, 42), pixels, device, generated=True).plan.source()
            headers = cuda_table.extension().source_headers()
        begin = time.process_time()
        code = cuda_compile._compile(source, headers, {"SPARSEMETA_ELEMENT": "float"}, GPU)
        seconds = time.process_time() - begin
        registers, spilled = usage(code)
        cost = f"{seconds:.0f} s, {1e3 * seconds / pattern.nnz / pixels:.1f} ms a product, {len(code) // 1024} KB"
        print(f"{channels} channels x {pixels} pixels, {pattern.nnz} weights: {cost}, {registers} registers", end=", ")
        print(f"{spilled} bytes spilled", flush=True)


if __name__ == "__main__":
    main()
