"""The figures of a plan: memory, FLOPs, traffic, and speed limits from the published numbers of a chip."""

import math
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.plan import hlo
from gensupcon_jax.plan.chips import Chip, Slice
from gensupcon_jax.plan.known import DataSizes
from gensupcon_jax.plan.step import PlannedStep, bytes_per_device, check_planned, plan_steps, with_fields

# An instruction belongs to the first group whose pattern matches its scope, as named in train_step.py, objectives.py and by Flax.
GROUPS = (
    ("augment", r"\baugment\b"),
    ("mix", r"\bmix\b"),
    ("key encoder", r"\bkey_encoder\b"),
    ("teacher", r"\bteacher\b"),
    ("local views", r"\blocal_views\b"),
    ("stem", r"_stem\b"),
    *((f"stage {stage}", rf"\bstage{stage}_") for stage in (1, 2, 3, 4)),
    ("patches", r"\bpatch_embed\b"),
    ("attention", r"\bblock\d+\b.*\battn\b"),
    ("MLP", r"\bblock\d+\b.*\bmlp\b"),
    ("backbone", r"\bbackbone\b"),  # of a network without these parts, all of it
    ("head", r"\bhead\b|\bClassifier\b|\boutput\b"),
    ("loss", r"\bloss\b"),
    ("diagnostics", r"\bdiagnostics\b"),
    ("EMA", r"\bema\b"),
    ("queue", r"\bqueue\b"),
    ("update", r"\bupdate\b"),
)
OTHER = "other"
_NOT_COMPILED = {
    "bytes_per_image": math.nan,
    "hbm_bytes_per_image": math.nan,
    "groups": (),
    "traffic": (),
    "bounds": {},
    "compiler_seconds": None,
}
FITS, DOES_NOT_FIT, UNKNOWN = "fits", "DOES NOT FIT", "unknown"


class OperationGroup(NamedTuple):
    """Cost per image of one part of the network or the step: FLOPs, bytes as XLA counts them, bytes of HBM."""

    name: str
    flops: float
    num_bytes: float
    hbm_bytes: float


class CollectiveTraffic(NamedTuple):
    """Collectives of one kind per step: their number, bytes per chip, lower bound in seconds by the links."""

    kind: str
    count: int
    num_bytes: float
    seconds: float


class OfSize(NamedTuple):
    """The steps with views of one size in pixels, and lower bounds of their time: by the bounds, and by the compiler's cycles."""

    view_size: int
    steps: int
    seconds: float
    compiler_seconds: float | None


class Figures(NamedTuple):
    """The figures of one config on one slice; bytes and FLOPs are per chip and step, unless named per image.

    Where views have several sizes in turn, they are those of the largest, and by_size has the time of each.
    recipe: its name, where several are planned.
    memory: part -> bytes of HBM per chip.  bounds: resource -> lower bound of the seconds per step; empty if not compiled.
    compiler_seconds: the sum of the compiler's own cycle estimates, None if there are none.  verdict: FITS, DOES_NOT_FIT or
    UNKNOWN.  reason: of the verdict, from the compiler.  advice: what to change.
    """

    topology: str
    num_chips: int
    num_hosts: int
    batch_size: int
    images_per_chip: int
    total_steps: int
    memory: dict[str, float]
    hbm_bytes: float
    verdict: str
    reason: str
    advice: str
    flops_per_image: float
    bytes_per_image: float
    hbm_bytes_per_image: float
    groups: tuple[OperationGroup, ...]
    traffic: tuple[CollectiveTraffic, ...]
    bounds: dict[str, float]
    compiler_seconds: float | None
    compile_seconds: float
    assumptions: tuple[str, ...]
    by_size: tuple[OfSize, ...] = ()
    recipe: str = ""

    @property
    def binding(self) -> str:
        """The resource of the binding bound."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def seconds(self) -> float:
        """Lower bound of the time per step."""
        return self.bounds[self.binding]

    @property
    def images_per_second(self) -> float:
        """Upper bound over all chips."""
        return self.batch_size / self.seconds

    @property
    def hours(self) -> float:
        """Lower bound for the whole training."""
        if self.by_size:
            return sum(each.steps * each.seconds for each in self.by_size) / 3600
        return self.total_steps * self.seconds / 3600

    @property
    def compiler_hours(self) -> float | None:
        """The whole training by the compiler's own estimate."""
        parts = self.by_size or (OfSize(0, self.total_steps, 0.0, self.compiler_seconds),)
        known = [each.steps * each.compiler_seconds / 3600 for each in parts if each.compiler_seconds is not None]
        return sum(known) if len(known) == len(parts) else None


def plan_slice(config: ConfigDict, sizes: DataSizes, chips: Slice) -> Figures:
    """Compile the config's steps for the slice and measure them; one that does not fit is a verdict, not an error."""
    planned = plan_steps(config, sizes, sharding.make_mesh(chips.devices))
    return together([(each, _plan_one(config, sizes, chips, each)) for each in planned])


def together(found: Sequence[tuple[PlannedStep, Figures]]) -> Figures:
    """The figures of the largest views, with all steps and the time of each size; those of the only size as they are."""
    if len(found) == 1:
        return found[0][1]
    _, largest = max(found, key=lambda each: each[0].view_size)
    fits = all(figures.verdict == FITS for _, figures in found)
    by_size = (
        tuple(
            OfSize(planned.view_size, planned.total_steps, figures.seconds, figures.compiler_seconds)
            for planned, figures in found
        )
        if fits
        else ()
    )
    return largest._replace(
        total_steps=sum(planned.total_steps for planned, _ in found),
        compile_seconds=sum(figures.compile_seconds for _, figures in found),
        by_size=by_size,
    )


def _plan_one(config: ConfigDict, sizes: DataSizes, chips: Slice, planned: PlannedStep) -> Figures:
    started = time.monotonic()
    lowered = planned.lower()
    try:
        compiled, refusal = lowered.compile(), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        compiled, refusal = None, str(error)
    seconds = time.monotonic() - started
    common = {
        "topology": chips.name,
        "num_chips": len(chips.devices),
        "num_hosts": chips.num_hosts,
        "batch_size": config.batch_size,
        "images_per_chip": planned.images_per_device,
        "total_steps": planned.total_steps,
        "hbm_bytes": chips.chip.hbm_bytes,
        "compile_seconds": seconds,
        "assumptions": planned.assumptions + ((chips.chip.note,) if chips.chip.note else ()),
    }
    if compiled is None:
        return _that_does_not_fit(planned, refusal, common, config, sizes)
    return _of_compiled(planned, compiled, chips.chip, common)


def plan_gpus(config: ConfigDict, sizes: DataSizes, num_devices: int) -> Figures:
    """FLOPs and the memory of the state on this many GPUs; without their compiler nothing else is known.

    The step is lowered for CUDA nevertheless, so a step that no GPU could run is an error.
    """
    of_sizes = plan_steps(_without_loops(config), sizes, sharding.abstract_mesh(num_devices))
    planned = max(of_sizes, key=lambda each: each.view_size)
    in_parts = "microbatches compute the forward pass once more, which is not counted"
    started = time.monotonic()
    traced = planned.train_step_fn.trace(planned.state, planned.frozen, planned.batch, planned.seed_key)
    cost = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return Figures(
        topology=f"gpu:{num_devices}",
        num_chips=num_devices,
        num_hosts=0,
        batch_size=config.batch_size,
        images_per_chip=planned.images_per_device,
        total_steps=sum(each.total_steps for each in of_sizes),
        memory=state_memory(planned),
        hbm_bytes=math.nan,
        verdict=UNKNOWN,
        reason="activations depend on the GPU compiler, which is not available here",
        advice="",
        flops_per_image=float(cost["flops"]) / planned.images_per_device,
        compile_seconds=time.monotonic() - started,
        assumptions=planned.assumptions + ((in_parts,) if config.microbatches > 1 else ()),
        **_NOT_COMPILED,
    )


def _without_loops(config: ConfigDict) -> ConfigDict:
    """The same step without loops: a program that is only lowered counts the body of a loop once."""
    fields = config.augment
    largest = config.batch_size * max(fields.num_views, fields.local_views) + config.momentum_encoder.queue_size
    return with_fields(config, {"loss.tile_size": largest, "microbatches": 1})


def state_memory(planned: PlannedStep) -> dict[str, float]:
    """Bytes per device of the arrays that persist between steps, by part."""
    state = planned.state
    parts = {
        "parameters": state.params,
        "running statistics": state.batch_stats,
        "optimizer": state.opt_state,
        "EMA": (state.ema_params, state.ema_batch_stats),
        "queue": state.queue,
        "teacher or frozen encoder": planned.frozen,
        "batch of images": planned.batch,
    }
    return {name: float(bytes_per_device(tree)) for name, tree in parts.items()}


def groups_of(works: Iterable[hlo.Work], num_images: int) -> tuple[OperationGroup, ...]:
    """Cost per image by part of the network and step, in the order of GROUPS."""
    sums = {}
    for work in works:
        sums.setdefault(group_of(work.scope), []).append(work)
    order = [name for name, _ in GROUPS] + [OTHER]
    return tuple(
        OperationGroup(name, *(sum(getattr(work, field) for work in sums[name]) / num_images for field in fields))
        for name in order
        if name in sums
        for fields in [("flops", "num_bytes", "hbm_bytes")]
    )


def group_of(scope: str) -> str:
    """The part of the network or step that an instruction's scope belongs to."""
    return next((name for name, pattern in GROUPS if re.search(pattern, scope)), OTHER)


def traffic_of(collectives: Iterable[hlo.Collective], chip: Chip) -> tuple[CollectiveTraffic, ...]:
    """The traffic between chips per step, by kind of collective, with the lower bound of its time."""
    kinds = {}
    for collective in collectives:
        kinds.setdefault(collective.kind, []).append(collective)
    return tuple(
        CollectiveTraffic(
            kind,
            sum(part.times for part in parts),
            sum(part.times * max(part.input_bytes, part.output_bytes) for part in parts),
            sum(part.times * link_seconds(part, chip) for part in parts),
        )
        for kind, parts in sorted(kinds.items())
    )


def link_seconds(collective: hlo.Collective, chip: Chip) -> float:
    """Lower bound in seconds: the bytes that a chip must send, over the bandwidth of all its links in one direction.

    all-reduce: each chip sends 2 (n-1)/n of the array; all-gather, reduce-scatter and all-to-all: (n-1)/n of the
    whole; collective-permute: the whole array.
    """
    num = collective.group_size
    share = (num - 1) / num if num else 1.0
    whole = max(collective.input_bytes, collective.output_bytes)
    sent = {"all-reduce": 2 * share * whole, "collective-permute": whole}.get(collective.kind, share * whole)
    return sent / (chip.interconnect_bandwidth / 2)


def _of_compiled(planned: PlannedStep, compiled: Any, chip: Chip, common: dict[str, Any]) -> Figures:
    images = planned.images_per_device
    cost, program = compiled.cost_analysis(), hlo.parse_program(compiled.as_text())
    works = list(hlo.works(program))
    traffic = traffic_of(hlo.collectives(program), chip)
    hbm_bytes = sum(work.hbm_bytes for work in works)
    # XLA's cost analysis counts the body of a loop once.
    flops = max(float(cost["flops"]), sum(work.flops for work in works))
    cycles = sum(work.cycles for work in works)
    return Figures(
        memory=_memory(planned, compiled.memory_analysis()),
        verdict=FITS,
        reason="",
        advice="",
        flops_per_image=flops / images,
        bytes_per_image=float(cost["bytes accessed"]) / images,
        hbm_bytes_per_image=hbm_bytes / images,
        groups=groups_of(works, images),
        traffic=traffic,
        bounds={
            "compute": flops / chip.peak_flops,
            "HBM": hbm_bytes / chip.hbm_bandwidth,
            "interconnect": sum(kind.seconds for kind in traffic),
        },
        compiler_seconds=cycles / chip.clock if cycles else None,
        **common,
    )


def _memory(planned: PlannedStep, analysis: Any) -> dict[str, float]:
    """Part -> bytes; the excess of the arguments over the sum of their parts is padding of tiles."""
    parts = state_memory(planned)
    parts["padding"] = max(0.0, analysis.argument_size_in_bytes - sum(parts.values()))
    parts["activations and workspace"] = float(analysis.temp_size_in_bytes)
    parts["outputs that reuse no input"] = float(max(0, analysis.output_size_in_bytes - analysis.alias_size_in_bytes))
    parts["program"] = float(analysis.generated_code_size_in_bytes)
    return parts


def _that_does_not_fit(
    planned: PlannedStep, refusal: str, common: dict[str, Any], config: ConfigDict, sizes: DataSizes
) -> Figures:
    parts = state_memory(planned)
    fixed = sum(parts.values())
    used, limit = refused_bytes(refusal, fixed)
    parts["activations, workspace and program"] = max(0.0, used - fixed)
    found = f"{gib(used)} of the {gib(limit)} GiB that the compiler may use" if limit else refusal.splitlines()[0]
    return Figures(
        memory=parts,
        verdict=DOES_NOT_FIT,
        reason=found,
        advice=_advice(config, sizes, common["num_chips"], share=(limit - fixed) / (used - fixed) if limit else 0.0),
        flops_per_image=math.nan,
        **_NOT_COMPILED,
        **common,
    )


def refused_bytes(message: str, fixed: float) -> tuple[float, float]:
    """Needed and allowed bytes in the compiler's message about a program that is too large; (0, 0) if it has neither.

    fixed: bytes of the arguments, which "HLO temporaries (33.54G) exceeds available HBM (15.75G)" leaves out and
    "Used 21.28G of 15.75G hbm" counts.
    """
    for pattern, extra in ((r"{0} of {0} hbm", 0.0), (r"\({0}\) exceeds available HBM \({0}\)", fixed)):
        match = re.search(pattern.format(r"([\d.]+)([KMG]?)"), message)
        if match:
            units = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30}
            return float(match[1]) * units[match[2]] + extra, float(match[3]) * units[match[4]]
    return 0.0, 0.0


def _advice(config: ConfigDict, sizes: DataSizes, num_chips: int, *, share: float) -> str:
    """The nearest change that should fit; share: of the current images, as memory is assumed linear in the batch size."""
    dtype = [] if config.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]
    changes = ", ".join(
        [*_fewer_activations(config, num_chips, share), *dtype, "more chips, or chips with more memory"]
    )
    for images in range(int(config.batch_size // num_chips * share * 0.95), 0, -1):
        try:
            check_planned(with_fields(config, {"batch_size": images * num_chips}), sizes, num_chips)
        except UserError:
            continue  # the queue size or a mixing block does not divide
        return f"try --batch_size={images * num_chips} ({images} images per chip; an estimate), {changes}"
    return f"try {changes}"


def _fewer_activations(config: ConfigDict, num_chips: int, share: float) -> list[str]:
    """The smallest number of microbatches whose activations should fit; the program's own size is counted among them."""
    local, now = config.batch_size // num_chips, config.microbatches
    if config.objective == "linear_probe" or share <= 0:
        return []
    enough = (parts for parts in range(now + 1, local // 2 + 1) if local % parts == 0 and now / parts <= 0.95 * share)
    return [
        f"--config.microbatches={parts} (an estimate; one forward pass more)" for parts in [next(enough, None)] if parts
    ]


def gib(num_bytes: float) -> str:
    """1.5 for 1.5 * 2**30."""
    return f"{num_bytes / 2**30:.2f}"
