"""Where the wall time of the run went: one bar of its phases, and the times of its steps."""

from typing import Any

from gensupcon_jax.phases import PHASES
from gensupcon_jax.report.charts import WIDTH
from gensupcon_jax.report.data import ReportData
from gensupcon_jax.report.values import duration, number

_BAR_HEIGHT, _SEPARATE = 26, 1.0  # in units of the view box, as WIDTH
_LEAST_SHARE = 0.001  # of the time, below which a phase has no row of its own


def wall_time_section(data: ReportData) -> dict[str, Any] | str:
    """The bar and its table, or why they are not shown."""
    account = data.account_fn() if data.account_fn is not None else data.results.get("time")
    if not account or not number(account["wall"]) > 0:
        return "The run has no account of its time."
    wall = account["wall"]
    shares = {phase: max(0.0, number(account["seconds"].get(phase, 0.0))) / wall for phase in PHASES}
    rows = [
        {"name": PHASES[phase], "color": f"p{place}", "time": duration(share * wall), "percent": f"{100 * share:.1f}"}
        for place, (phase, share) in enumerate(shares.items())
        if share >= _LEAST_SHARE
    ]
    parts = ", ".join(f"{row['name']} {row['percent']} %" for row in rows)
    return {
        "wall": duration(wall),
        "starts": account["starts"],
        "goodput": f"{account['goodput']:.0f}",
        "rows": rows,
        "bars": _bars(shares),
        "width": WIDTH * 3,
        "height": _BAR_HEIGHT,
        "alt": f"Wall time of {duration(wall)}: {parts}",
        "steps": _step_times(account["step_seconds"]),
        "slowest": _slowest(account),
    }


def _bars(shares: dict[str, float]) -> list[tuple[str, float, float]]:
    """(color, left, width) of the part of each phase."""
    bars, left = [], 0.0
    for place, share in enumerate(shares.values()):
        width = share * WIDTH * 3
        if share > 0:
            bars.append((f"p{place}", round(left, 2), round(max(width - _SEPARATE, width / 2), 2)))
        left += width
    return bars


def _step_times(seconds: dict[str, float] | None) -> dict[str, str] | None:
    return None if seconds is None else {name: precise(value) for name, value in seconds.items()}


def _slowest(account: dict[str, Any]) -> dict[str, str] | None:
    """Of several processes, the one that the others waited for."""
    idle = account.get("idle_seconds")
    if not idle:
        return None
    slowest = account["slowest_process"]
    others = [seconds for process, seconds in enumerate(idle) if process != slowest]
    return {"process": f"{slowest}", "time": duration(idle[slowest]), "others": duration(max(others))}


def precise(seconds: float) -> str:
    """A short time with three digits: 0.0123 -> "12.3 ms"."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
