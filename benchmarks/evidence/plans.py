"""Plans of experiments: the question, the data, the methods and what is compared, read from a TOML file."""

import hashlib
import itertools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gensupcon_jax.errors import UserError

FOLDER = Path(__file__).parent / "plans"


class Method(NamedTuple):
    """A row of the table: a variant of the recipe with changed fields.

    teacher: the method whose network teaches this one, trained for `teacher_epochs` on the same images.
    teacher_function: a name in the table `data.TEACHERS`.  data: a name in the table `data.PREPARATIONS`.
    rates: learning rates tried.  budgets: in place of those of the plan.
    """

    title: str
    variant: str | None = None
    fields: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    rates: tuple[float, ...] = (0.2,)
    teacher: str | None = None
    teacher_epochs: float | None = None
    teacher_function: str | None = None
    data: str = "labeled_subset"
    budgets: tuple[float, ...] | None = None


class Comparison(NamedTuple):
    """A pair of methods whose difference is a sentence of the page; budgets: None: all that both have."""

    first: str
    second: str
    measure: str = "linear_top1"
    budgets: tuple[float, ...] | None = None


class Plan(NamedTuple):
    """A plan; fingerprint: of its file. budgets: in epochs. rate_budget: at which the rates are tried, with the first
    seed.  networks_of: another plan that trains with the same settings, whose workdirs are used.

    images: labeled training images, drawn by the seed; None: all.  measures: names in results.json, or in the table
    `further.MEASURES`, with the words of the table.
    """

    name: str
    fingerprint: str
    title: str
    question: str
    recipe: str
    budgets: tuple[float, ...]
    rate_budget: float
    seeds: tuple[int, ...]
    images: int | None
    fields: dict[str, Any]
    measures: dict[str, str]
    methods: dict[str, Method]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    networks_of: str | None = None

    def budgets_of(self, method: str) -> tuple[float, ...]:
        """The budgets of a method."""
        return self.methods[method].budgets or self.budgets


class Wanted(NamedTuple):
    """One run of a plan."""

    method: str
    budget: float
    seed: int
    rate: float


def names() -> list[str]:
    """The plans that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_plan(name: str) -> Plan:
    """A plan by its name; UserError for an unknown name, method or field of the file."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"there is no plan {name!r}; allowed: {', '.join(names())}")
    content = path.read_bytes()
    found = tomllib.loads(content.decode())
    methods = {key: _made(Method, value, f"{path.name}, method {key}") for key, value in found.pop("methods").items()}
    comparisons = tuple(
        _made(Comparison, value, f"{path.name}, a comparison") for value in found.pop("comparisons", [])
    )
    plan = _made(
        Plan,
        {
            "name": name,
            "fingerprint": hashlib.sha256(content).hexdigest()[:12],
            "images": None,
            "fields": {},
            **found,
            "methods": methods,
            "comparisons": comparisons,
        },
        path.name,
    )
    plan = plan if "rate_budget" in found else plan._replace(rate_budget=plan.budgets[0])
    _check(plan, path.name)
    return plan


def _made(kind: Any, values: dict[str, Any], where: str) -> Any:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    unknown = set(values) - set(kind._fields)
    missing = set(kind._fields) - set(kind._field_defaults) - set(values) - {"rate_budget"}
    if unknown or missing:
        raise UserError(
            f"{where}: unknown {sorted(unknown)}, missing {sorted(missing)}; allowed: {', '.join(kind._fields)}"
        )
    if kind is Plan:
        values.setdefault("rate_budget", None)
    return kind(**values)


def _check(plan: Plan, where: str) -> None:
    named = [(each.first, each.second) for each in plan.comparisons]
    named += [(method.teacher,) for method in plan.methods.values() if method.teacher]
    for name in itertools.chain(*named):
        if name not in plan.methods:
            raise UserError(f"{where} names the method {name!r}; allowed: {', '.join(plan.methods)}")


def rate_tries(plan: Plan, method: str) -> list[Wanted]:
    """The runs from which the learning rate of a method is chosen; none where there is one rate only."""
    rates = plan.methods[method].rates
    budgets = plan.budgets_of(method)
    budget = plan.rate_budget if plan.rate_budget in budgets else budgets[0]
    return [Wanted(method, budget, plan.seeds[0], rate) for rate in rates] if len(rates) > 1 else []


def runs_with(plan: Plan, method: str, rate: float) -> list[Wanted]:
    """The runs of a method with its chosen rate: cheap budgets first, then by seed."""
    pairs = itertools.product(sorted(plan.budgets_of(method)), plan.seeds)
    return [Wanted(method, budget, seed, rate) for budget, seed in pairs]


def in_order(runs: Sequence[Wanted], plan: Plan) -> list[Wanted]:
    """The most useful first: the first seed of all methods at the cheapest budget, then the other seeds, then the next budget."""
    position = {method: number for number, method in enumerate(plan.methods)}
    return sorted(runs, key=lambda run: (run.budget, plan.seeds.index(run.seed), position[run.method]))


def workdir_of(plan: Plan, wanted: Wanted, root: Path) -> Path:
    """Where a run trains."""
    return (
        root
        / (plan.networks_of or plan.name)
        / f"{wanted.method}_{wanted.budget:g}_rate{wanted.rate:g}_seed{wanted.seed}"
    )
