"""What every Triton kernel needs of a GPU, compiled ahead of time: registers, shared memory, spills; and how it loads.

    python -m sparsemeta.bench.gpu_resources      # writes the table of this Triton into bench/results; needs no GPU

Compiled are the programs that channels_last operands launch, whose loads are the widest, and those of contiguous ones.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from sparsemeta.kernels import inner_update, masked_conv2d, norm_act_pool
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .report import save_json

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / f"triton-{triton.__version__}-resources.json"
ARCHITECTURES = (80, 90)
ARITHMETIC = {  # name -> element type and PRECISION, which says something of float32 only
    "float32": ("fp32", "ieee"), "tf32": ("fp32", "tf32"), "bfloat16": ("bf16", "tf32"), "float16": ("fp16", "tf32"),
}  # fmt: skip
LAYOUTS = ("channels_last", "contiguous")
OPTIONS = ("num_warps", "num_stages")
MULTIPLES = ("values_task", "bias_task", "partial_task", "partial_split")  # sizes of whole blocks: multiples of 16
WHOLE = {"p_starts": "i32", "p_table": "i32", "p_code": "u8"}  # whatever the operands are
SUMS = ("p_partial", "p_mean", "p_rstd", "p_coefficients")
REALS = ("eps", "slope")
TUPLES = ("p_params", "p_grads", "p_outs", "p_rates", "numbers")


@dataclass(frozen=True)
class Program:
    """One kernel with everything that is fixed when it is compiled."""

    name: str
    kernel: Any
    element: str
    layout: str
    constants: dict[str, Any]
    multiples: tuple[str, ...] = MULTIPLES  # arguments that are multiples of 16

    def signature(self) -> tuple[dict[str, Any], dict[str, Any], dict[tuple, list]]:
        """Types, constants, and which arguments are multiples of 16."""
        types, constants, multiples = {}, {n: v for n, v in self.constants.items() if n not in OPTIONS}, {}
        for at, parameter in enumerate(self.kernel.params):
            name = parameter.name
            types[name] = self._type(name)
            if name in TUPLES:
                count = len(self.constants["SIZES"])
                types[name] = ("fp32" if name == "numbers" else f"*{self.element}",) * count
                multiples |= {(at, k): [["tt.divisibility", 16]] for k in range(count) if name != "numbers"}
                continue
            if not parameter.is_constexpr and name.endswith(self._unit()):
                constants[name] = 1
            if parameter.is_constexpr or name in constants:
                types[name] = "constexpr"
            elif name.startswith("p_") or name in self.multiples or self._multiple(name):
                multiples[at,] = [["tt.divisibility", 16]]
        return types, constants, multiples

    def compile(self, architecture: int) -> dict[str, Any]:
        """Compile for `sm_<architecture>` and read the result."""
        options = {name: self.constants[name] for name in OPTIONS if name in self.constants}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a change of a default in a later Triton
            source, target = ASTSource(self.kernel, *self.signature()), GPUTarget("cuda", architecture, 32)
            return _read(triton.compile(source, target=target, options=options))

    def _type(self, name: str) -> str:
        if not name.startswith("p_"):
            return "fp32" if name in REALS else "i32"
        return "*" + WHOLE.get(name, "fp32" if name in SUMS else self.element)

    def _unit(self) -> str:
        return {"channels_last": "_channel", "contiguous": "_column"}.get(self.layout, "none")

    def _multiple(self, name: str) -> bool:
        return self.layout == "channels_last" and name.endswith(("_task", "_image", "_row", "_column"))


def programs() -> Iterator[Program]:
    """Every kernel, block size, arithmetic and layout; strides and taps change nothing but constants."""
    for block in masked_conv2d.BLOCK_SIZES:
        for name, (element, precision) in ARITHMETIC.items():
            for layout in LAYOUTS:
                for kind, kernel, constants in _of_block(block, precision, layout):
                    fixed = {**constants, "B": block, "PRECISION": precision, "WIDEN": False}
                    yield Program(f"{kind}, {block}x{block}, {name}, {layout}", kernel, element, layout, fixed)
    yield from _norm_act_pool()
    yield from _inner_update()
    for element in ("fp32", "bf16", "fp16"):
        yield Program(f"sum of splits, {element}", masked_conv2d.sum_splits, element, "contiguous", {"BLOCK": 256})


def _of_block(block: int, precision: str, layout: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each pass with its first tile; with the others the forward pass, where the channels are last."""
    last = layout == "channels_last"
    steps = {f"{side}_STEP_{axis}": 1 for side in ("SOURCE", "TARGET") for axis in "HW"} | {"LAST": last}
    forward = {**steps, "WEIGHT_K": 1, "WEIGHT_N": block, "HAS_BIAS": True}
    input_grad = {**steps, "WEIGHT_K": block, "WEIGHT_N": 1, "HAS_BIAS": False}
    weight_grad = {"STEP_H": 1, "STEP_W": 1, "WEIGHT_O": block, "WEIGHT_I": 1, "G_LAST": last, "X_LAST": last}
    gather, tiles = masked_conv2d.gather_conv2d, masked_conv2d.gather_tiles(block, precision)
    yield "forward", gather, {**tiles[0], **forward}
    yield "input gradient", gather, {**tiles[0], **input_grad}
    [tile] = masked_conv2d.weight_grad_tiles(block, precision)
    yield "weight gradient", masked_conv2d.weight_grad_conv2d, {**tile, **weight_grad}
    for number, tile in enumerate(tiles[1:] if last else [], 1):
        yield f"forward, tile {number}", gather, {**tile, **forward}


def _norm_act_pool() -> Iterator[Program]:
    """With pooling, for 64 channels; 16-bit types differ from float32 in conversions alone, and want channels_last."""
    module, rows = norm_act_pool, {"SPLITS": norm_act_pool.SPLITS, "BLOCK_R": norm_act_pool.ROWS}
    multiples = ("channels", "rows", "split")
    yield Program("statistics, float32", module.statistics, "fp32", "rows", rows, multiples)
    for name, element in (("float32", "fp32"), ("bfloat16", "bf16")):
        for order, second in (("first", False), ("second", True)):
            kernel, fixed = module.gradient_coefficients, {"SECOND": second, **rows}
            yield Program(f"gradient coefficients, {order}, {name}", kernel, element, "rows", fixed, multiples)
        for layout in LAYOUTS if name == "float32" else LAYOUTS[:1]:
            last = layout == "channels_last"
            fixed = {"LAST": last, **module.tile(64, last)}
            for kind, kernel, constants in _passes(module):
                yield Program(f"{kind}, {name}, {layout}", kernel, element, "", {**fixed, **constants}, multiples)


def _passes(module: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    yield "moments", module.moments, {}
    yield "norm_act_pool", module.norm_act_pool, {"POOL": 2}
    for order, second in (("first", False), ("second", True)):
        yield f"gradient sums, {order}", module.gradient_sums, {"POOL": 2, "SECOND": second}
        yield f"gradient of x, {order}", module.combine, {"POOL": 2, "SECOND": second}
    yield "gradient of g, second", module.select, {"POOL": 2}


def _inner_update() -> Iterator[Program]:
    """As many parameters as there is room for, as MAML and as Meta-SGD update them."""
    sizes = tuple(range(100, 100 + 2000 * inner_update.LIMIT, 2000))
    for rates, counts in (("numbers", (0,) * len(sizes)), ("tensors", sizes)):
        for name, element in (("float32", "fp32"), ("bfloat16", "bf16")):
            fixed = {"SIZES": sizes, "REPEATS": (1,) * len(sizes), "COUNTS": counts, "FROM_ZEROS": False}
            fixed["BLOCK"] = inner_update.BLOCK
            yield Program(f"inner update, {rates}, {name}", inner_update.inner_update, element, "", fixed)


@dataclass(frozen=True)
class Resources:
    """Of one compiled program.

    Attributes:
        registers: of a thread.
        shared: bytes of shared memory.
        spilled: bytes of a thread that do not fit into its registers.
        products: the unit that multiplies.
        lanes: of a warp that loads images lie along `"channels"` or `"pixels"`; empty where it loads none.
        loads: number of a thread's loads, by their bytes.
    """

    registers: int
    shared: int
    spilled: int
    products: str
    lanes: str
    loads: dict[str, int]


def _read(compiled: Any) -> dict[str, Any]:
    registers, spilled = usage(compiled.asm["cubin"])
    ptx = compiled.asm["ptx"]
    products = next((unit for unit in ("wgmma", "mma.sync") if unit in ptx), "fma" if "fma." in ptx else "none")
    sizes = registers, compiled.metadata.shared, spilled
    return asdict(Resources(*sizes, products, _lanes(compiled.asm["ttgir"]), _loads(ptx)))


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of it that are spilled, of the one kernel in compiled code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [(registers, stack, local)] = re.findall(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", told)
    return int(registers), int(stack) + int(local)


def _lanes(ttgir: str) -> str:
    """By the layout of the pointers to the first image that is read, `b_x` or `b_g`."""
    image = re.search(r"%b_[gx]\w* = .*(?:load|async_copy_global_to_local) .*x!tt\.ptr<\w+>, (#blocked\d*)>", ttgir)
    if not image:
        return ""
    order = re.search(rf"^{image[1]} = .*order = \[(\d)", ttgir, re.MULTILINE)
    return ("channels", "pixels")[int(order[1])]


def _loads(ptx: str) -> dict[str, int]:
    """Loads into registers (`.v4.b32`), and copies into shared memory, which tell their bytes (`0x10`)."""
    registers = re.findall(r"ld\.global[.:\w]*?(?:\.v(\d))?\.b(\d+)\s", ptx)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\w+)", ptx)
    found = Counter([int(count or 1) * int(bits) // 8 for count, bits in registers] + [int(size, 0) for size in copies])
    return {str(size): found[size] for size in sorted(found)}


def main() -> None:
    """Compile everything and write the table."""
    found = {f"sm_{a}": {program.name: program.compile(a) for program in programs()} for a in ARCHITECTURES}
    save_json(TABLE, found)
    for architecture, rows in found.items():
        worst = max(rows.values(), key=lambda row: row["registers"])
        spilled = sum(row["spilled"] > 0 for row in rows.values())
        print(f"{architecture}: {len(rows)} programs, at most {worst['registers']} registers, {spilled} spill")


if __name__ == "__main__":
    main()
