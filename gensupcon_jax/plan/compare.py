"""One config on every slice with every batch size: all are checked first, then compiled one after another."""

import re
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from gensupcon_jax.errors import UserError
from gensupcon_jax.plan import step
from gensupcon_jax.plan.chips import Slice, find_slice, parse_topology
from gensupcon_jax.plan.figures import Figures, plan_gpus, plan_slice
from gensupcon_jax.plan.known import DataSizes, data_sizes


def plan(
    config: ConfigDict,
    *,
    topologies: Sequence[str],
    batch_sizes: Sequence[int],
    sizes: dict[str, int | None] | None = None,
    say_fn: Callable[[str], None] = lambda sentence: None,
) -> list[Figures]:
    """The figures of each slice with each batch size, slices first.

    sizes: fields of known.DataSizes if the data set is not a known one.  say_fn: called with a line before each compilation.
    Raises UserError, with all problems and before anything compiles, for invalid slices, batch sizes or fields.
    """
    given = {name: value for name, value in (sizes or {}).items() if value is not None}
    of_config = {"image_size": config.dataset.image_size, "num_channels": config.dataset.channels}
    if config.dataset.label_kind == "value":
        of_config["num_classes"] = config.dataset.num_bins
    known = data_sizes(config.dataset.name, **of_config | given)
    places = [_place(name) for name in topologies]
    cases = [
        (place, step.with_fields(config, {"batch_size": batch_size})) for place in places for batch_size in batch_sizes
    ]
    _check_all(cases, known)
    figures = []
    for place, changed in cases:
        if isinstance(place, int):
            figures.append(plan_gpus(changed, known, place))
        else:
            say_fn(f"compiling for {place.name}, batch {changed.batch_size}; ResNet-50 takes several minutes")
            figures.append(plan_slice(changed, known, place))
    return figures


def _place(name: str) -> Slice | int:
    """A TPU slice, or a number of GPUs."""
    gpus = re.fullmatch(r"gpu:(\d+)", name.strip())
    if gpus is None:
        parse_topology(name)
        return find_slice(name)
    if int(gpus[1]) < 1:
        raise UserError(f"--topology is {name!r}; allowed: gpu: and a whole number from 1")
    return int(gpus[1])


def _check_all(cases: Sequence[tuple[Slice | int, ConfigDict]], sizes: DataSizes) -> None:
    problems = {}
    for place, config in cases:
        name, num_devices = (f"gpu:{place}", place) if isinstance(place, int) else (place.name, len(place.devices))
        try:
            step.check_planned(config, sizes, num_devices)
        except UserError as error:
            problems |= {f"{name}: {line}": None for line in str(error).splitlines()}
    if problems:
        raise UserError("\n".join(problems))
