"""Compiled CUDA kernels (csrc/cuda/). Tensors are addresses and strides `[task, image, channel, row, column]`.

The last argument of what launches is the device's number and the stream's address; nothing waits for the device.
`sparsemeta._C.cuda_on_cpu` has the same functions, but for `problem`, for memory of the CPU.
"""

from collections.abc import Sequence

def problem() -> str:
    """Why no GPU can be used; empty where one can."""

def source_headers() -> dict[str, str]:
    """What `ConvPlan.source` includes, by name."""

def inner_update(
    params: Sequence[int],
    grads: Sequence[int],
    outs: Sequence[int],
    sizes: Sequence[int],
    rates: Sequence[float],
    bf16: bool,
    where: tuple[int, int],
) -> None: ...

class ConvPlan:
    def __init__(
        self,
        index: int,
        nnz: int,
        weight: Sequence[int],
        input: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        kind: int,
        pixels: int,
        generated: bool,
    ) -> None: ...
    def source(self) -> str:
        """Of the kernel `masked_conv2d_generated`, to be compiled at run time; empty without `generated`."""
    def threads(self) -> int: ...
    def words(self) -> int: ...
    def shared_bytes(self) -> int: ...
    def copy_to(self, address: int) -> None: ...
    def blocks(self, tasks: int, images: int) -> int: ...
    def splits(self, tasks: int, images: int, processors: int) -> int: ...
    def convolve(
        self,
        table: int,
        x: int,
        x_strides: Sequence[int],
        values: int,
        value_task: int,
        bias: int,
        bias_task: int,
        y: int,
        y_strides: Sequence[int],
        tasks: int,
        images: int,
        bf16: bool,
        where: tuple[int, int],
    ) -> None: ...
    def generated_arguments(
        self,
        table: int,
        x: int,
        x_strides: Sequence[int],
        values: int,
        value_task: int,
        bias: int,
        bias_task: int,
        y: int,
        y_strides: Sequence[int],
        images: int,
    ) -> bytes: ...
    def weight_gradient(
        self,
        table: int,
        g: int,
        g_strides: Sequence[int],
        x: int,
        x_strides: Sequence[int],
        out: int,
        parts: int,
        values: int,
        value_task: int,
        rate: float,
        tasks: int,
        images: int,
        splits: int,
        bf16: bool,
        where: tuple[int, int],
    ) -> None: ...
