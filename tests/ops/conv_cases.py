"""The table of convolutions that every backend has to compute like the dense definition."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]

# "cpu" is tested even where it is missing, because a broken build has to fail. "triton" takes blocks (tests/kernels),
# "cuda" a GPU, or its programs on the CPU (tests/cuda).
BACKENDS = ["dense", "cpu"]


@dataclass(frozen=True)
class Case:
    """One convolution: sizes, arguments of `F.conv2d`, how much is kept, and how the operands lie in memory."""

    name: str
    weight: tuple[int, int, int, int]
    image: Pair
    batch: int = 5
    stride: int | Pair = 1
    padding: int | Pair | str = 0
    dilation: int | Pair = 1
    groups: int = 1
    density: float = 0.2  # a positive density keeps at least one block
    block: tuple[int, ...] = (1, 1)
    bias: bool = True
    x: str = "contiguous"
    g: str = "contiguous"
    tasks: int | None = None  # values [T, nnz]
    shared: tuple[str, ...] = ()  # operands that are the same for all tasks: "x", "bias"

    @property
    def arguments(self) -> dict:
        """Keyword arguments of `F.conv2d` and of `masked_conv2d`."""
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


# fmt: off
CASES = [
    # kernels and images
    Case("one-weight", (1, 1, 1, 1), (1, 1), 1, density=1),
    Case("1x1", (7, 33, 1, 1), (5, 5)),
    Case("1x1-one-pixel-batch-75", (64, 65, 1, 1), (1, 1), 75),
    Case("2x2-fills-image", (7, 3, 2, 2), (2, 2)),
    Case("3x3-one-pixel", (3, 3, 3, 3), (1, 1), padding=1, density=1),
    Case("3x3-tiny-image", (7, 3, 3, 3), (2, 2), 25, padding=1),
    Case("3x3-no-padding", (7, 7, 3, 3), (7, 9)),
    Case("4x4", (7, 3, 4, 4), (7, 9), padding=2),
    Case("5x5", (7, 3, 5, 5), (10, 10), padding=2),
    Case("6x6-padding-1", (3, 3, 6, 6), (10, 10), padding=1),
    Case("7x7-fills-image", (3, 7, 7, 7), (7, 7)),
    Case("7x7-stem", (33, 3, 7, 7), (42, 42), 1, stride=2, padding=3),
    Case("1x3", (7, 7, 1, 3), (7, 9), padding=(0, 1)),
    Case("3x1", (7, 7, 3, 1), (7, 9), padding=(1, 0), g="sliced"),
    Case("2x5", (7, 3, 2, 5), (7, 9), padding=(1, 2)),
    Case("7x1-tall", (3, 3, 7, 1), (9, 1), 33),
    # channels and batches
    Case("first-layer", (64, 1, 3, 3), (42, 42), 5, padding=1),
    Case("first-layer-84", (64, 3, 3, 3), (84, 84), 2, padding=1),
    Case("84-one-output", (1, 3, 3, 3), (84, 84), 1, padding=1),
    Case("inner-layer", (64, 64, 3, 3), (10, 10), 25, padding=1),
    Case("inner-layer-42", (64, 64, 3, 3), (42, 42), 2, padding=1, density=0.05, x="channels_last"),
    Case("odd-channels", (65, 33, 3, 3), (5, 5), 33, padding=1),
    Case("wide", (160, 160, 3, 3), (5, 5), 5, padding=1, density=0.05),
    Case("widening", (160, 64, 3, 3), (10, 10), 1, padding=1),
    Case("narrowing", (1, 160, 3, 3), (5, 5), 25, padding=1),
    Case("batch-0", (7, 3, 3, 3), (7, 9), 0, padding=1),
    Case("batch-1", (7, 3, 3, 3), (7, 9), 1, padding=1),
    Case("batch-75", (7, 3, 3, 3), (10, 10), 75, padding=1, bias=False),
    Case("no-bias", (7, 3, 3, 3), (7, 9), padding=1, bias=False),
    # stride
    Case("stride-2", (7, 3, 3, 3), (7, 9), 25, stride=2, padding=1),
    Case("stride-2-even-image", (33, 7, 3, 3), (10, 10), 5, stride=2, padding=1, g="channels_last"),
    Case("stride-3", (7, 3, 3, 3), (10, 10), stride=3),
    Case("stride-1-2", (7, 3, 3, 3), (7, 9), stride=(1, 2), padding=1),
    Case("stride-3-1", (7, 3, 2, 3), (7, 9), stride=(3, 1), padding=(0, 1)),
    Case("stride-2-shortcut", (64, 33, 1, 1), (7, 9), stride=2, x="channels_last"),  # most pixels are read by no tap
    Case("stride-over-kernel", (7, 3, 2, 2), (10, 10), stride=3, g="scalar"),
    Case("stride-over-image", (7, 3, 1, 1), (2, 2), 33, stride=5),
    # padding
    Case("padding-pair", (7, 3, 3, 3), (7, 9), padding=(2, 0)),
    Case("padding-over-kernel", (7, 3, 3, 3), (5, 5), padding=4),
    Case("padding-over-kernel-strided", (7, 3, 1, 3), (5, 5), padding=(3, 5), stride=2),
    Case("padding-over-image", (3, 3, 7, 7), (1, 1), 5, padding=6),
    Case("same", (7, 3, 3, 5), (7, 9), padding="same"),
    Case("same-2x2", (7, 3, 2, 2), (7, 9), padding="same"),
    Case("same-4x3-dilated", (7, 3, 4, 3), (10, 10), padding="same", dilation=(3, 2)),
    Case("same-4x6-over-image", (3, 7, 4, 6), (2, 2), padding="same", x="transposed"),
    Case("valid", (7, 3, 3, 3), (7, 9), padding="valid", stride=2),
    # dilation
    Case("dilation-2", (7, 3, 3, 3), (10, 10), padding=2, dilation=2),
    Case("dilation-1-3", (7, 3, 3, 3), (7, 9), padding=1, dilation=(1, 3)),
    Case("dilation-over-image", (7, 3, 3, 3), (5, 5), padding=8, dilation=8),
    Case("dilation-2-stride-2", (7, 3, 3, 3), (10, 10), padding=2, dilation=2, stride=2),  # one phase for all taps
    Case("dilation-3-stride-2", (7, 3, 3, 3), (10, 10), padding=3, dilation=3, stride=2),
    Case("dilation-2-stride-3", (7, 3, 3, 3), (10, 10), padding=1, dilation=2, stride=3),
    # groups
    Case("groups-3", (33, 7, 3, 3), (7, 9), groups=3, padding=1),
    Case("groups-2-strided", (8, 16, 3, 3), (7, 9), groups=2, padding=1, stride=2, x="sliced"),
    Case("depthwise", (33, 1, 3, 3), (7, 9), groups=33, padding=1, density=0.5),
    Case("depthwise-64", (64, 1, 3, 3), (10, 10), 5, groups=64, padding=1, x="channels_last", g="channels_last"),
    Case("depthwise-multiplier-2", (14, 1, 5, 5), (7, 9), groups=7, padding=2, density=0.5),
    Case("groups-of-one-output", (3, 7, 3, 3), (5, 5), groups=3, dilation=2, padding=2),
    # how much is kept, and in which blocks
    Case("nothing-kept", (7, 3, 3, 3), (7, 9), density=0, padding=1),
    Case("nothing-kept-no-bias-strided", (7, 3, 1, 1), (7, 9), density=0, stride=2, bias=False),
    Case("one-kept", (64, 64, 3, 3), (5, 5), density=1e-9, padding=1),
    Case("all-kept", (33, 7, 3, 3), (7, 9), density=1, padding=1),
    Case("all-kept-64", (64, 64, 3, 3), (5, 5), density=1, padding=1),
    Case("half-kept-160", (160, 64, 3, 3), (5, 5), density=0.5, padding=1, stride=2),
    Case("few-kept", (64, 33, 3, 3), (10, 10), density=0.01, padding=1),
    Case("blocks-16x1", (64, 33, 3, 3), (10, 10), 5, block=(16, 1), padding=1),
    Case("blocks-16x1-groups", (64, 7, 3, 3), (5, 5), block=(16, 1), groups=2, padding=1),
    Case("blocks-4x4", (64, 64, 3, 3), (10, 10), 5, block=(4, 4), padding=1, x="channels_last"),
    Case("blocks-8x8", (160, 64, 3, 3), (5, 5), 25, block=(8, 8), padding=1),
    Case("blocks-8x8-strided", (64, 64, 3, 3), (10, 10), block=(8, 8), stride=2, padding=1),
    Case("blocks-8x8-all", (16, 8, 3, 3), (7, 9), block=(8, 8), density=1),
    Case("whole-kernels", (33, 7, 3, 3), (7, 9), block=(1, 1, 3, 3), padding=1),
    Case("whole-kernels-depthwise", (33, 1, 3, 3), (7, 9), block=(1, 1, 3, 3), groups=33, padding=1),
    Case("rows-of-kernels", (8, 6, 3, 3), (7, 9), block=(4, 2, 1, 3), padding=1),
    # layouts of the input and of the gradient
    Case("x-channels-last", (7, 33, 3, 3), (7, 9), padding=1, x="channels_last"),
    Case("x-channels-last-strided", (7, 3, 3, 3), (7, 9), padding=1, stride=2, x="channels_last"),
    Case("x-transposed", (7, 3, 3, 3), (7, 9), padding=1, x="transposed"),
    Case("x-batch-last", (7, 3, 3, 3), (7, 9), 33, padding=1, x="batch_last"),
    Case("x-sliced", (7, 3, 3, 3), (7, 9), padding=1, x="sliced"),
    Case("x-negated", (7, 3, 3, 3), (7, 9), padding=1, x="negated"),
    Case("x-one-image", (7, 3, 3, 3), (7, 9), 25, padding=1, x="one_image"),
    Case("x-one-pixel", (7, 3, 3, 3), (7, 9), padding=1, x="one_pixel"),
    Case("g-channels-last", (33, 7, 3, 3), (7, 9), padding=1, g="channels_last"),
    Case("g-transposed", (7, 3, 3, 3), (7, 9), padding=1, g="transposed"),
    Case("g-batch-last", (7, 3, 3, 3), (7, 9), 33, padding=1, g="batch_last"),
    Case("g-negated", (7, 3, 3, 3), (7, 9), padding=1, g="negated"),
    Case("g-one-pixel", (7, 3, 3, 3), (7, 9), padding=1, g="one_pixel", x="channels_last"),
    Case("g-scalar", (7, 3, 3, 3), (7, 9), 25, padding=1, g="scalar"),
    Case("all-channels-last", (64, 64, 3, 3), (10, 10), 5, padding=1, x="channels_last", g="channels_last"),
    # one row of values for each task
    Case("tasks", (33, 7, 3, 3), (7, 9), 5, padding=1, tasks=3),
    Case("tasks-0", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=0),
    Case("tasks-1", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=1, bias=False),
    Case("tasks-batch-0", (7, 3, 3, 3), (7, 9), 0, padding=1, tasks=3),
    Case("tasks-none-kept", (7, 3, 3, 3), (7, 9), 2, padding=1, tasks=3, density=0),
    Case("tasks-many", (64, 3, 3, 3), (5, 5), 25, padding=1, tasks=9),
    Case("tasks-shared-x", (33, 7, 3, 3), (7, 9), 5, padding=1, tasks=3, shared=("x",)),
    Case("tasks-0-shared-x", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=0, shared=("x",)),
    Case("tasks-shared-bias", (33, 7, 3, 3), (7, 9), 5, stride=2, tasks=3, shared=("bias",)),
    Case("tasks-shared-x-and-bias", (7, 3, 3, 3), (7, 9), 5, stride=(2, 1), tasks=2, shared=("x", "bias")),
    Case("tasks-channels-last", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=3, x="channels_last", g="channels_last"),
    Case("tasks-one-image", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=3, x="one_image", g="scalar"),
    Case("tasks-task-last", (7, 3, 3, 3), (7, 9), 5, padding=1, tasks=3, x="batch_last", g="batch_last"),
    Case("tasks-depthwise-sliced", (14, 1, 3, 3), (7, 9), 5, groups=7, padding=1, tasks=3, x="sliced", g="sliced"),
    Case("tasks-blocks", (16, 8, 3, 3), (5, 5), 5, block=(4, 4), padding=1, tasks=4, g="transposed"),
]
# fmt: on
