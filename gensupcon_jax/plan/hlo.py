"""Parses the text of an optimized XLA program: what each instruction computes, moves and sends."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "bf16": 16,
    "f16": 16,
    "s16": 16,
    "u16": 16,
    "s64": 64,
    "u64": 64,
}
_BITS |= {"f64": 64, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_TILE = re.compile(r"T\(([\d,*]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_ASYNC_START, _ASYNC_REST = ("-start",), ("-done", "-update")
# These name memory or locate it: nothing moves.
_FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id")
_FREE += ("opt-barrier", "add-dependency", "iota", "rng-get-and-update-state")
_NO_ARITHMETIC = (
    *_FREE,
    "fusion",
    "while",
    "conditional",
    "call",
    "copy",
    "reshape",
    "transpose",
    "broadcast",
    "slice",
)
_NO_ARITHMETIC += (
    "concatenate",
    "pad",
    "gather",
    "dynamic-slice",
    "dynamic-update-slice",
    "reverse",
    "custom-call",
    "sort",
)
_NO_ARITHMETIC += ("convert", "bitcast-convert", "rng-bit-generator", "scatter", *COLLECTIVES)


class Array(NamedTuple):
    """One array of a program, with the layout that the compiler chose."""

    dtype: str
    shape: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    memory_space: int = 0  # 0: HBM; others are on-chip

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> float:
        """Size in memory, including the padding of its tiles."""
        order = self.minor_to_major or tuple(range(len(self.shape)))[::-1]
        sides = [self.shape[axis] for axis in order]  # the fastest-varying first, which is the tile's last
        for place, side in enumerate(reversed(self.tile)):
            if place < len(sides):
                sides[place] = -(-sides[place] // side) * side
            elif place == len(sides):
                sides.append(side)
        bits = _BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 32)
        return math.prod(sides) * bits / 8


class Instruction(NamedTuple):
    """One line of a program."""

    name: str
    opcode: str
    outputs: tuple[Array, ...]
    operands: tuple[str, ...]
    argument: str  # the text in the parentheses, for parameter and constant
    attributes: str
    is_root: bool

    @property
    def scope(self) -> str:
        """The part of the Python program it comes from: jit(f)/jvp(HeadedEncoder)/backbone/..."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    def called(self, *names: str) -> list[str]:
        """The computations that it runs, by these attributes, such as `calls` or `body`."""
        found = re.findall(rf"\b(?:{'|'.join(names)})=\{{?(%[\w.\-]+(?:, *%[\w.\-]+)*)", self.attributes)
        return [name for group in found for name in re.findall(r"%([\w.\-]+)", group)]

    @property
    def trip_count(self) -> int:
        """Number of iterations of a loop, 1 if the compiler does not know it."""
        match = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(match[1]) if match else 1

    @property
    def estimated_cycles(self) -> int:
        """The compiler's own estimate, 0 if there is none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match[1]) if match else 0


Computation = dict[str, Instruction]


class Program(NamedTuple):
    """All computations of a module by name, and the name of its entry."""

    computations: dict[str, Computation]
    entry: str


class Work(NamedTuple):
    """Total cost of one instruction over all its executions: FLOPs, bytes of all memories and of HBM, estimated cycles."""

    scope: str
    opcode: str
    flops: float
    num_bytes: float
    hbm_bytes: float
    cycles: float


class Collective(NamedTuple):
    """Arrays that chips exchange: input and output bytes per chip, and the number of participating chips."""

    kind: str
    scope: str
    input_bytes: float
    output_bytes: float
    group_size: int
    times: int


def parse_program(text: str) -> Program:
    """The program of a compiled function's `as_text()`."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if line.startswith("}"):
            current = None
        elif current is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
            if header:
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        else:
            instruction = _parse_instruction(line)
            if instruction:
                current[instruction.name] = instruction
    return Program(computations, entry)


def works(program: Program) -> Iterator[Work]:
    """Every instruction with a cost, and the FLOPs inside it by their own scopes.

    Bytes are those of operands and results, as XLA's cost analysis counts them; in a loop, times its iterations.
    """
    scopes = {}
    for computation, instruction, times in _running(program):
        if id(computation) not in scopes:
            scopes[id(computation)] = _scopes(computation)
        if instruction.opcode in _FREE:
            continue
        reads, writes = _traffic(program, computation, instruction)
        num_bytes = sum(array_bytes for _, array_bytes in reads + writes)
        hbm_bytes = sum(array_bytes for space, array_bytes in reads + writes if space == 0)
        cycles = times * instruction.estimated_cycles
        scope = scopes[id(computation)][instruction.name]
        yield Work(scope, instruction.opcode, 0.0, times * num_bytes, times * hbm_bytes, cycles)
        for inner_computation, inner in _with_fused(program, computation, instruction):
            flops = _flops(inner_computation, inner)
            if flops:
                yield Work(inner.scope or scope, inner.opcode, times * flops, 0.0, 0.0, 0.0)


def collectives(program: Program) -> list[Collective]:
    """The collectives, in the order of the program.

    A TPU may spread one collective over many fusions, to overlap it with computation: these share a `chain_id`.
    """
    found, chains = [], set()
    for outer, instruction, times in _running(program):
        for computation, part in _with_fused(program, outer, instruction):
            kind = part.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            chain = re.search(r'chain_id="(\d+)"', part.attributes)
            if chain and (kind, chain[1]) in chains:
                continue
            chains |= {(kind, chain[1])} if chain else set()
            found.append(_collective(kind, computation, part, times))
    return found


def _collective(kind: str, computation: Computation, instruction: Instruction, times: int) -> Collective:
    inputs = sum(array.size * _width(array) for array in _arrays_of(computation, instruction.operands))
    outputs = instruction.outputs
    if instruction.opcode.endswith("-start") and len(outputs) > len(instruction.operands):
        outputs = outputs[len(instruction.operands) :]  # operands, then results, then the context of the hardware
    if kind in ("all-reduce", "all-to-all", "collective-permute"):
        output_bytes = inputs
    else:
        output_bytes = sum(array.size * _width(array) for array in outputs if array.shape)
    return Collective(kind, instruction.scope, inputs, output_bytes, _group_size(instruction), times)


def _parse_instruction(line: str) -> Instruction | None:
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if match is None:
        return None
    rest = line[match.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    argument = rest[opening + 1 : closing]
    return Instruction(
        name=match[2],
        opcode=rest[:opening],
        outputs=tuple(_parse_arrays(shape)),
        operands=tuple(re.findall(r"%([\w.\-]+)", argument)),
        argument=argument,
        attributes=rest[closing + 1 :],
        is_root=bool(match[1]),
    )


def _closing(text: str, opening: int) -> int:
    """The position of the closing parenthesis."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


def _parse_arrays(shape: str) -> Iterator[Array]:
    for dtype, sides, order, layout in _ARRAY.findall(shape):
        tile, space = _TILE.search(layout), _SPACE.search(layout)
        yield Array(
            dtype,
            tuple(int(side.removeprefix("<=")) for side in sides.split(",") if side),
            tuple(int(axis) for axis in order.split(",") if axis),
            tuple(int(side) for side in tile[1].split(",") if side.isdigit()) if tile else (),
            int(space[1]) if space else 0,
        )


def _running(
    program: Program, computation: str | None = None, times: int = 1
) -> Iterator[tuple[Computation, Instruction, int]]:
    """The instructions that run, from the entry on, and how often; a fusion is one instruction."""
    instructions = program.computations[computation or program.entry]
    for instruction in instructions.values():
        if instruction.opcode == "while":
            for inner in instruction.called("body", "condition"):
                yield from _running(program, inner, times * instruction.trip_count)
        elif instruction.opcode == "conditional":
            branches = instruction.called("branch_computations", "true_computation", "false_computation")
            for inner in branches[:1]:  # one of the alternatives
                yield from _running(program, inner, times)
        elif instruction.opcode == "call":
            for inner in instruction.called("to_apply", "calls", "called_computation"):
                yield from _running(program, inner, times)
        else:
            yield instructions, instruction, times


def _scopes(computation: Computation) -> dict[str, str]:
    """The scope of every instruction; copies that the compiler added get the scope of the instruction they serve."""
    scopes = {name: instruction.scope for name, instruction in computation.items()}
    for name, instruction in reversed(computation.items()):  # users come after their operands
        for operand in instruction.operands:
            if operand in scopes and not scopes[operand]:
                scopes[operand] = scopes[name]
    for name, instruction in computation.items():
        if not scopes[name]:
            scopes[name] = next((scopes[operand] for operand in instruction.operands if scopes.get(operand)), "")
    return scopes


def _with_fused(
    program: Program, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    if instruction.opcode not in ("fusion", "async-start"):
        yield computation, instruction
        return
    for name in instruction.called("calls"):
        inner = program.computations[name]
        for part in inner.values():
            yield from _with_fused(program, inner, part)


MemoryTraffic = list[tuple[int, float]]  # memory space and bytes


def _traffic(
    program: Program, computation: Computation, instruction: Instruction
) -> tuple[MemoryTraffic, MemoryTraffic]:
    """The reads and writes of an instruction."""
    opcode = instruction.opcode
    if opcode.endswith(_ASYNC_REST):
        return [], []
    if opcode == "fusion":
        return _fusion_traffic(program, computation, instruction)
    outputs = instruction.outputs
    if opcode.endswith(_ASYNC_START):  # source and destination, of which one may be a part of the other
        ends = outputs[:2]
        moved = min((array.num_bytes for array in ends), default=0.0)
        return [(array.memory_space, moved) for array in ends], []
    writes = [(array.memory_space, array.num_bytes) for array in outputs]
    operands = _arrays_of(computation, instruction.operands)
    if opcode in ("slice", "dynamic-slice", "gather") and operands:
        return [(operands[0].memory_space, outputs[0].num_bytes)], writes
    if opcode == "dynamic-update-slice" and len(operands) > 1:
        update = operands[1]
        return [(update.memory_space, update.num_bytes)], [(outputs[0].memory_space, update.num_bytes)]
    return [(array.memory_space, array.num_bytes) for array in operands], writes


def _fusion_traffic(
    program: Program, computation: Computation, fusion: Instruction
) -> tuple[MemoryTraffic, MemoryTraffic]:
    """Of an operand that is only sliced, the slices are read; of a result updated in place, the update is written."""
    (name,) = fusion.called("calls")
    inner = program.computations[name]
    users = {}
    for part in inner.values():
        for operand in part.operands:
            users.setdefault(operand, []).append(part)
    reads = []
    parameters = {int(part.argument): part for part in inner.values() if part.opcode == "parameter"}
    for number, operand in enumerate(fusion.operands):
        arrays = _arrays_of(computation, [operand])
        if not arrays or number not in parameters:
            continue
        reads.append((arrays[0].memory_space, _read_bytes(parameters[number], arrays[0], users)))
    writes = []
    roots = _roots(inner)
    for array, root in zip(fusion.outputs, roots if len(roots) == len(fusion.outputs) else [], strict=False):
        if root.opcode == "dynamic-update-slice":
            writes.append((array.memory_space, _arrays_of(inner, root.operands[1:2])[0].num_bytes))
        else:
            writes.append((array.memory_space, array.num_bytes))
    if len(writes) != len(fusion.outputs):
        writes = [(array.memory_space, array.num_bytes) for array in fusion.outputs]
    return reads, writes


def _read_bytes(parameter: Instruction, array: Array, users: dict[str, list[Instruction]]) -> float:
    total = 0.0
    for user in users.get(parameter.name, []):
        if user.opcode in ("slice", "dynamic-slice", "gather") and user.operands[0] == parameter.name:
            total += user.outputs[0].num_bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # updated in place
        else:
            return array.num_bytes
    return min(total, array.num_bytes)


def _roots(computation: Computation) -> list[Instruction]:
    (root,) = [part for part in computation.values() if part.is_root]
    parts = [computation[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return [_through_bitcasts(computation, part) for part in parts]


def _through_bitcasts(computation: Computation, part: Instruction) -> Instruction:
    while part.opcode == "bitcast" and part.operands[0] in computation:
        part = computation[part.operands[0]]
    return part


def _arrays_of(computation: Computation, names) -> list[Array]:
    return [array for name in names if name in computation for array in computation[name].outputs]


def _width(array: Array) -> float:
    return Array(array.dtype, (1,)).num_bytes


def _group_size(instruction: Instruction) -> int:
    explicit = re.search(r"replica_groups=\{\{([\d,]*)\}", instruction.attributes)
    if explicit:
        return len(explicit[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", instruction.attributes)
    return int(iota[2]) if iota else 0


def _flops(computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode == "convolution":
        return _convolution_flops(computation, instruction)
    if instruction.opcode == "dot":
        left = _arrays_of(computation, instruction.operands[:1])[0]
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = math.prod(left.shape[int(axis)] for axis in axes[1].split(",") if axis) if axes else 1
        return 2.0 * instruction.outputs[0].size * contracted
    if instruction.opcode in ("reduce", "reduce-window", "select-and-scatter"):
        operands = _arrays_of(computation, instruction.operands[:1])
        return float(operands[0].size) if operands else 0.0
    if instruction.opcode in _NO_ARITHMETIC or instruction.opcode.endswith((*_ASYNC_START, *_ASYNC_REST)):
        return 0.0
    return float(instruction.outputs[0].size) if instruction.outputs else 0.0


def _convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Two for each product of a pixel and a weight; products with padding or dilation zeros do not count."""
    image, kernel = (_arrays_of(computation, [operand])[0] for operand in instruction.operands[:2])
    output = instruction.outputs[0]
    (labels,) = re.findall(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", instruction.attributes)
    image_labels, kernel_labels, output_labels = labels
    window = _window(instruction.attributes)
    pairs = 1
    for dimension in range(len(window)):
        pairs *= _meetings(
            image.shape[image_labels.index(str(dimension))],
            kernel.shape[kernel_labels.index(str(dimension))],
            output.shape[output_labels.index(str(dimension))],
            **window[dimension],
        )
    batch = output.shape[output_labels.index("b")]
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    inputs, features = kernel.shape[kernel_labels.index("i")], kernel.shape[kernel_labels.index("o")]
    return 2.0 * batch * pairs * inputs * features / (int(groups[1]) if groups else 1)


def _window(attributes: str) -> list[dict[str, int]]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    if found is None:
        return []
    fields = dict(part.split("=") for part in found[1].split())
    number = len(fields["size"].split("x"))

    def values(name, default):
        return fields[name].split("x") if name in fields else [default] * number

    return [
        {
            "stride": int(stride),
            "padding": int(pad.split("_")[0]),
            "image_dilation": int(image),
            "kernel_dilation": int(kernel),
        }
        for stride, pad, image, kernel in zip(
            values("stride", "1"),
            values("pad", "0_0"),
            values("lhs_dilate", "1"),
            values("rhs_dilate", "1"),
            strict=True,
        )
    ]


def _meetings(
    image: int, kernel: int, output: int, *, stride: int, padding: int, image_dilation: int, kernel_dilation: int
) -> int:
    """Along one axis, over all outputs: the number of kernel positions that meet a pixel."""
    last, count = (image - 1) * image_dilation, 0
    for place in range(kernel):
        start = place * kernel_dilation - padding
        count += sum(
            1
            for step in range(output)
            if 0 <= start + step * stride <= last and (start + step * stride) % image_dilation == 0
        )
    return count
