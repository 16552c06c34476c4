"""The table of block-sparse convolutions that the Triton kernels have to compute like the dense definition."""

from __future__ import annotations

from conv_cases import Case

# fmt: off
CASES = [
    # blocks: at one tap, over the kernel, over a part of it
    Case("1x1", (16, 32, 1, 1), (3, 5), 2, block=(16, 16), density=0.5),
    Case("3x3", (32, 48, 3, 3), (5, 7), 2, block=(16, 16), padding=1),
    Case("3x3-blocks-32", (64, 32, 3, 3), (4, 5), 2, block=(32, 32), padding=1),
    Case("3x3-blocks-64", (64, 128, 3, 3), (3, 4), 2, block=(64, 64), padding=1),
    Case("whole-kernels", (32, 32, 3, 3), (5, 4), 2, block=(16, 16, 3, 3), padding=1, density=0.5),
    Case("whole-kernels-32", (32, 64, 3, 3), (3, 4), 1, block=(32, 32, 3, 3), padding=1, density=0.5, stride=2),
    Case("whole-kernels-64", (64, 64, 2, 2), (3, 4), 1, block=(64, 64, 2, 2), density=1),
    Case("rows-of-kernels", (16, 32, 3, 3), (5, 4), 2, block=(16, 16, 1, 3), padding=1, density=0.5),
    # geometry
    Case("2x5", (16, 16, 2, 5), (4, 6), 2, block=(16, 16), padding=(1, 2), density=0.5),
    Case("stride-2", (32, 16, 3, 3), (7, 6), 2, block=(16, 16), stride=2, padding=1, density=0.4),
    Case("stride-3-2", (16, 32, 3, 3), (7, 8), 1, block=(16, 16), stride=(3, 2), padding=(0, 1), density=0.4),
    Case("stride-2-shortcut", (16, 16, 1, 1), (5, 5), 2, block=(16, 16), stride=2, density=1),
    Case("stride-over-kernel", (16, 16, 2, 2), (7, 7), 1, block=(16, 16), stride=3, padding=1, density=0.6),
    Case("stride-over-image", (16, 16, 1, 1), (2, 2), 3, block=(16, 16), stride=5, density=1),
    Case("padding-over-kernel", (16, 16, 3, 3), (3, 3), 1, block=(16, 16), padding=4, density=0.4),
    Case("padding-over-image", (16, 16, 5, 5), (1, 1), 2, block=(16, 16), padding=4, density=0.3),
    Case("same-2x4", (16, 16, 2, 4), (4, 5), 2, block=(16, 16), padding="same", density=0.5),
    Case("same-dilated", (16, 16, 4, 3), (5, 6), 1, block=(16, 16), padding="same", dilation=(3, 2), density=0.5),
    Case("dilation-2-stride-2", (16, 16, 3, 3), (7, 8), 1, block=(16, 16), padding=2, dilation=2, stride=2),
    Case("dilation-3-stride-2", (16, 16, 3, 3), (9, 8), 1, block=(16, 16), padding=3, dilation=3, stride=2),
    # how much is kept, and how many images
    Case("nothing-kept", (16, 32, 3, 3), (4, 4), 2, block=(16, 16), padding=1, density=0),
    Case("nothing-kept-strided-no-bias", (16, 16, 1, 1), (4, 4), 2, block=(16, 16), stride=2, density=0, bias=False),
    Case("all-kept", (32, 16, 3, 3), (4, 4), 2, block=(16, 16), padding=1, density=1),
    Case("one-kept", (48, 48, 3, 3), (4, 4), 2, block=(16, 16), padding=1, density=1e-9),
    Case("batch-0", (16, 16, 3, 3), (4, 4), 0, block=(16, 16), padding=1),
    Case("several-tiles-and-splits", (16, 16, 3, 3), (9, 13), 6, block=(16, 16), padding=1, density=0.2),
    Case("splits-of-blocks-32", (32, 32, 1, 1), (9, 13), 6, block=(32, 32), density=1, x="channels_last"),
    # layouts
    Case("channels-last", (32, 32, 3, 3), (5, 4), 2, block=(16, 16), padding=1, x="channels_last", g="channels_last"),
    Case("x-channels-last", (16, 16, 3, 3), (5, 4), 2, block=(16, 16), padding=1, x="channels_last", stride=2),
    Case("sliced", (16, 16, 3, 3), (5, 4), 2, block=(16, 16), padding=1, x="sliced", g="transposed", density=0.5),
    Case("negated", (16, 16, 3, 3), (5, 4), 2, block=(16, 16), padding=1, x="negated", g="negated", density=0.5),
    Case("expanded", (16, 16, 3, 3), (5, 4), 3, block=(16, 16), padding=1, x="one_image", g="scalar", density=0.5),
    # one row of values for each task
    Case("tasks", (32, 16, 3, 3), (4, 5), 2, block=(16, 16), padding=1, tasks=3),
    Case("tasks-0", (16, 16, 3, 3), (4, 5), 2, block=(16, 16), padding=1, tasks=0),
    Case("tasks-1-no-bias", (16, 16, 3, 3), (4, 5), 2, block=(16, 16), padding=1, tasks=1, bias=False),
    Case("tasks-none-kept", (16, 16, 3, 3), (4, 5), 2, block=(16, 16), padding=1, tasks=2, density=0),
    Case("tasks-shared", (16, 16, 3, 3), (4, 5), 2, block=(16, 16), padding=1, tasks=2, shared=("x", "bias")),
    Case("tasks-strided-last", (16, 16, 3, 3), (5, 5), 2, block=(16, 16), stride=2, tasks=2, x="channels_last",
         g="channels_last", density=0.5),
    Case("tasks-whole-kernels", (16, 32, 3, 3), (4, 4), 2, block=(16, 16, 3, 3), padding=1, tasks=2, density=0.5),
    Case("tasks-splits", (16, 16, 1, 1), (9, 13), 6, block=(16, 16), tasks=2, density=1),
]
# fmt: on
SHORT = ("3x3", "3x3-blocks-32", "3x3-blocks-64", "whole-kernels", "stride-2", "channels-last", "tasks", "tasks-splits")
