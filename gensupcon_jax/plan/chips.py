"""Published specifications of TPU chips, and slices of them by name."""

import math
import os
import platform
import re
import sys
from importlib.util import find_spec
from typing import NamedTuple

import jax

from gensupcon_jax.errors import UserError
from gensupcon_jax.text import reason

EXTRA = 'pip install "gensupcon_jax[plan]"'
EXAMPLES = ("v4:2x2x4", "v5e:4x4", "v5p:2x2x2", "v6e:4x4")


class Chip(NamedTuple):
    """One chip: FLOP/s in bfloat16, bytes, bytes/s (of the links: all of them, both directions), cycles/s.

    sides: dimensions of a slice, 2 or 3.  chip_config: how libtpu presents the chip: one device per chip, as on the machine.
    note: printed with its figures.
    """

    name: str
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    interconnect_bandwidth: float
    clock: float
    sides: int
    largest_chips: int
    source: str
    chip_config: str = "default"
    note: str = ""


_GIB = 2.0**30
_MEGACORE = (
    "v4: the two cores of a chip are one device (megacore), as jax shows them on the machine; figures for libtpu's default, "
    "one device per core, are not comparable"
)
_DOCS = "https://cloud.google.com/tpu/docs/"
# Read in November 2026. Where the page says "16 GB" libtpu counts GiB. The links of v4: six of 50 GB/s each way (arXiv
# 2304.01433, table 4). For v5p an older version of the page gives 2765 GB/s, the current one 2575 GiB/s. No page states the
# clock: it is the peak over the FLOPs per cycle, 2 x 128 x 128 x the number of matrix units (v4 and v5p: 8, v5e: 4; v6e: 4 of
# 256 x 256); for v4 it is the 1050 MHz of arXiv 2304.01433.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * _GIB, 1200e9, 600e9, 1.05e9, 3, 4096, _DOCS + "v4", "megacore", _MEGACORE),
        Chip("v5e", 197e12, 16 * _GIB, 819e9, 400e9, 1.50e9, 2, 256, _DOCS + "v5e"),
        Chip("v5p", 459e12, 95 * _GIB, 2765e9, 1200e9, 1.75e9, 3, 8960, _DOCS + "v5p"),
        Chip("v6e", 918e12, 32 * _GIB, 1600e9, 800e9, 1.75e9, 2, 256, _DOCS + "v6e"),
    )
}


class Slice(NamedTuple):
    """Connected chips; `devices` are those that jax.devices() would return there, one for each chip."""

    name: str
    chip: Chip
    devices: list
    num_hosts: int


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and sides of a name such as v5e:4x4; UserError, with the known chips, for anything else."""
    match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", name.strip())
    known = ", ".join(f"{chip.name}:{'x'.join('ABC'[: chip.sides])}" for chip in CHIPS.values())
    if match is None or match[1] not in CHIPS:
        raise UserError(
            f"--topology is {name!r}; known: {known}, with numbers for the letters, and gpu:A; for example {', '.join(EXAMPLES)}"
        )
    chip, sides = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    if len(sides) != chip.sides or not 0 < math.prod(sides) <= chip.largest_chips:
        raise UserError(
            f"--topology is {name!r}; allowed: {chip.name} with {chip.sides} sides and up to {chip.largest_chips} chips, "
            f"for example {next(example for example in EXAMPLES if example.startswith(chip.name))}"
        )
    return chip, sides


def find_slice(name: str, *, chip_config: str | None = None) -> Slice:
    """The slice of this name, from libtpu, without a TPU; UserError if libtpu is missing or does not know the slice.

    chip_config: how libtpu presents a chip; None: as on the machine.
    """
    chip, sides = parse_topology(name)
    if find_spec("libtpu") is None:  # what jax looks for
        is_there = sys.platform == "linux" and platform.machine() == "x86_64"
        only = (
            "" if is_there else f"; it exists for Linux on x86-64 only, this is {sys.platform} on {platform.machine()}"
        )
        raise UserError(f"the TPU compiler is not installed; install it with: {EXTRA}{only}")
    # Without these libtpu queries the metadata server of a Google machine for minutes, and logs its absence.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # No TPU is opened, so several plans may run at once; otherwise libtpu locks the machine.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        description = topologies.get_topology_desc(
            platform="tpu",
            topology_name=name.strip(),
            chip_config_name=chip_config or chip.chip_config,
            **_host_bounds(sides),
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology is {name!r}, which libtpu refuses ({reason(error)}); allowed: sides that are multiples of its "
            f"hosts' 2x2, for example {', '.join(EXAMPLES)}"
        ) from error
    devices = list(description.devices)
    return Slice(name.strip(), chip, devices, len({device.process_index for device in devices}))


def _host_bounds(sides: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
    """The chips of one host if they are not the usual 2x2: a single chip, or the 8 chips of one v5e or v6e machine."""
    return {"chips_per_host_bounds": (sides[0], sides[1], 1)} if sides in ((1, 1), (2, 4)) else {}
