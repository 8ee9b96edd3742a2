"""A plan as a table and as JSON."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from gensupcon_jax.plan.chips import CHIPS
from gensupcon_jax.plan.figures import DOES_NOT_FIT, FITS, UNKNOWN, Figures, OperationGroup, gib
from gensupcon_jax.text import aligned

_BOUNDS = {
    "compute": "matrix units at their peak",
    "HBM": "HBM at its bandwidth",
    "interconnect": "links at their bandwidth",
}

Rows = list[tuple[str, ...]]


def text(plans: Sequence[Figures], *, price_per_chip_hour: float | None = None) -> str:
    """The tables of one or more plans, one column for each."""
    parts = [aligned(_main_rows(plans, price_per_chip_hour))]
    for plan in plans:
        if plan.groups:
            title = f"{_name(plan)}, batch {plan.batch_size:,}: FLOPs and memory traffic per image"
            parts.append(title + "\n" + aligned(_group_rows(plan.groups)))
    parts += [_verdict(plan) for plan in plans]
    sources = {
        chip.name: chip.source
        for chip in CHIPS.values()
        if any(plan.topology.startswith(chip.name + ":") for plan in plans)
    }
    if sources:
        parts.append("Chips: " + ", ".join(f"{name} {source}" for name, source in sources.items()) + ".")
    parts += [textwrap.fill(f"Assumption: {each}.", 120) for each in dict.fromkeys(_assumptions(plans))]
    if any(plan.bounds for plan in plans):
        parts.append(
            "FLOPs, bytes and memory are those of the TPU compiler for the program that training runs; nothing was run.\n"
            "Bounds and everything below them are estimates: at the published rates, with all units always busy and the\n"
            "input never late, a step cannot be faster. Real steps are slower."
        )
    if any(plan.verdict == UNKNOWN for plan in plans):
        parts.append(
            "GPUs: FLOPs are counted in the program before compilation, memory is that of the state and the batch only.\n"
            "Speed and cost are not estimated."
        )
    return "\n\n".join(parts)


def as_json(plans: Sequence[Figures], *, price_per_chip_hour: float | None = None) -> list[dict[str, Any]]:
    """The same figures, unrounded; unknown values are None."""
    rows = []
    for plan in plans:
        row = plan._asdict() | {
            "groups": [group._asdict() for group in plan.groups],
            "traffic": [kind._asdict() for kind in plan.traffic],
            "by_size": [each._asdict() for each in plan.by_size],
            "assumptions": list(plan.assumptions),
        }
        if plan.verdict == FITS:
            row |= {
                "binding": plan.binding,
                "images_per_second_at_most": plan.images_per_second,
                "input_images_per_second_per_host": plan.images_per_second / plan.num_hosts,
                "hours_at_least": plan.hours,
            }
            if price_per_chip_hour is not None:
                row["cost_at_least"] = plan.hours * plan.num_chips * price_per_chip_hour
        rows.append({name: _finite(value) for name, value in row.items()})
    return rows


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _main_rows(plans: Sequence[Figures], price: float | None) -> Rows:
    rows = [("", *(plan.topology for plan in plans))]
    if any(plan.recipe for plan in plans):
        rows.insert(0, ("", *(plan.recipe for plan in plans)))

    def row(label, value_fn, *, known=lambda plan: True):
        rows.append((label, *(value_fn(plan) if known(plan) else "-" for plan in plans)))

    def fitting(label, value_fn):
        row(label, value_fn, known=lambda plan: plan.verdict == FITS)

    row("chips / hosts", lambda plan: f"{plan.num_chips} / {plan.num_hosts or '-'}")
    row("batch / images per chip", lambda plan: f"{plan.batch_size:,} / {plan.images_per_chip}")
    row("steps of the recipe", lambda plan: f"{plan.total_steps:,}")
    rows.append(("HBM per chip, GiB", *("" for _ in plans)))
    for name in dict.fromkeys(name for plan in plans for name in plan.memory):
        if any(plan.memory.get(name, 0.0) >= 2**20 for plan in plans):
            row(f"  {name}", lambda plan, name=name: gib(plan.memory.get(name, 0.0)))
    row("  total", lambda plan: gib(sum(plan.memory.values())))
    if any(plan.hbm_bytes > 0 for plan in plans):
        row("  available", lambda plan: gib(plan.hbm_bytes), known=lambda plan: plan.hbm_bytes > 0)
    row("  verdict", lambda plan: plan.verdict)
    row(
        "GFLOP per image", lambda plan: _number(plan.flops_per_image / 1e9), known=lambda plan: plan.flops_per_image > 0
    )
    if all(plan.verdict == UNKNOWN for plan in plans):
        return rows
    fitting("MB per image, all memories", lambda plan: _number(plan.bytes_per_image / 1e6))
    fitting("MB per image, HBM alone", lambda plan: _number(plan.hbm_bytes_per_image / 1e6))
    rows.append(("collectives per step and chip", *("" for _ in plans)))
    for kind in sorted({kind.kind for plan in plans for kind in plan.traffic}):
        row(f"  {kind}", lambda plan, kind=kind: _traffic(plan, kind))
    rows.append(("time per step, at least, ms (estimate)", *("" for _ in plans)))
    for bound, meaning in _BOUNDS.items():
        fitting(f"  {bound}: {meaning}", lambda plan, bound=bound: _milliseconds(plan, bound))
    fitting("  compiler's own cycle estimate", lambda plan: _compiler(plan))
    for size in sorted({each.view_size for plan in plans for each in plan.by_size}):
        fitting(f"  views of {size} px: steps x ms at least", lambda plan, size=size: _of_size(plan, size))
    fitting("images/s, at most", lambda plan: f"{plan.images_per_second:,.0f}")
    fitting("  input: images/s per host", lambda plan: f"{plan.images_per_second / plan.num_hosts:,.0f}")
    fitting("hours for the recipe, at least", lambda plan: _number(plan.hours))
    fitting("  by the compiler's estimate", lambda plan: _compiler_hours(plan))
    if price is not None:
        fitting(f"cost at {price:g} per chip-hour, at least", lambda plan: _number(plan.hours * plan.num_chips * price))
    row("compiled (gpu: lowered) here in, s", lambda plan: f"{plan.compile_seconds:.0f}")
    return rows


def _traffic(plan: Figures, kind: str) -> str:
    found = [part for part in plan.traffic if part.kind == kind]
    return f"{_number(found[0].num_bytes / 1e6)} MB in {found[0].count}" if found else "none"


def _milliseconds(plan: Figures, bound: str) -> str:
    mark = " <- binds" if bound == plan.binding else ""
    return f"{_number(1e3 * plan.bounds[bound])}{mark}"


def _compiler(plan: Figures) -> str:
    return "-" if plan.compiler_seconds is None else _number(1e3 * plan.compiler_seconds)


def _name(plan: Figures) -> str:
    """The slice of a plan, with its recipe where there are several."""
    return f"{plan.recipe}, {plan.topology}" if plan.recipe else plan.topology


def _compiler_hours(plan: Figures) -> str:
    return "-" if plan.compiler_hours is None else _number(plan.compiler_hours)


def _of_size(plan: Figures, size: int) -> str:
    """The steps with views of this size, and the bound of their time."""
    found = [each for each in plan.by_size if each.view_size == size]
    return ", ".join(f"{each.steps:,} x {_number(1e3 * each.seconds)}" for each in found) or "-"


def _group_rows(groups: Sequence[OperationGroup]) -> Rows:
    rows = [("", "GFLOP", "MB, all memories", "MB, HBM alone")]
    for group in groups:
        rows.append((group.name, *_group_values(group.flops, group.num_bytes, group.hbm_bytes)))
    totals = (sum(getattr(group, field) for group in groups) for field in ("flops", "num_bytes", "hbm_bytes"))
    return [*rows, ("total", *_group_values(*totals))]


def _group_values(flops: float, num_bytes: float, hbm_bytes: float) -> tuple[str, str, str]:
    return _number(flops / 1e9), _number(num_bytes / 1e6), _number(hbm_bytes / 1e6)


def _number(value: float) -> str:
    """Four significant digits, more before the point: 12,345, 371.1, 0.0123."""
    if value == 0:
        return "0"
    digits = max(0, min(6, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def _verdict(plan: Figures) -> str:
    where = f"{_name(plan)}, batch {plan.batch_size:,}"
    if plan.verdict == FITS:
        left = plan.hbm_bytes - sum(plan.memory.values())
        free = f"{gib(left)} of {gib(plan.hbm_bytes)} GiB per chip are left; the compiler reserves some of it"
        return f"{where}: fits, {free}. The {plan.binding} bound is reached first."
    if plan.verdict == DOES_NOT_FIT:
        return f"{where}: does not fit: it needs {plan.reason}; {plan.advice}."
    return f"{where}: whether it fits is unknown: {plan.reason}."


def _assumptions(plans: Sequence[Figures]) -> list[str]:
    return [sentence for plan in plans for sentence in plan.assumptions]
