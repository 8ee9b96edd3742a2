"""What an evaluation chooses on the validation split, and what it takes in its place where there is none."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.outcome import Number
from gensupcon_jax.paths import as_path, failures
from gensupcon_jax.store import workdir

ON_VALIDATION, BY_DEFAULT = "validation", "defaults"  # who has chosen, in results.json; or the workdir of another run


class Choices(NamedTuple):
    """The k of k-NN and the L2 penalty of the linear probe, for data without a validation split.

    source: `BY_DEFAULT`, or the workdir of the run that has chosen them on its validation split.
    """

    neighbors: int
    penalty: Number
    source: str = BY_DEFAULT

    def sentence(self) -> str:
        """For the log of a run."""
        of = "the defaults" if self.source == BY_DEFAULT else f"those of {self.source}"
        return (
            "there is no validation split: nothing is evaluated while training, only the last step counts, and k of k-NN "
            f"({self.neighbors}) and the probe's penalty ({self.penalty:g}) are not chosen but {of}"
        )


def default_choices(neighbors: Sequence[int], penalties: Sequence[Number]) -> Choices:
    """The middle candidates, of an even number the lower one.

    >>> default_choices((1, 3, 5, 10, 20, 50, 200), (1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    Choices(neighbors=10, penalty=0.01, source='defaults')
    """
    return Choices(sorted(neighbors)[(len(neighbors) - 1) // 2], sorted(penalties)[(len(penalties) - 1) // 2])


def choices_of_run(folder: str, defaults: Choices) -> Choices:
    """What a finished run with a validation split has chosen; the penalty is the default where it fitted no probe.

    Raises UserError for a folder without such results.
    """
    found = f"evaluate.choices_from is {folder!r}"
    remedy = "allowed: the workdir of a finished run with a validation split, or None"
    try:
        results: dict[str, Any] | None = workdir.read_results(as_path(folder))
    except (UserError, *failures()) as error:
        raise UserError(f"{found}, whose results cannot be read ({error}); {remedy}") from error
    if results is None or "knn_neighbors" not in results:
        raise UserError(f"{found}, which has no results; {remedy}")
    if not results.get("num_validation"):
        raise UserError(f"{found}, which has no validation split and chose nothing; {remedy}")
    return Choices(int(results["knn_neighbors"]), results.get("linear_penalty", defaults.penalty), folder)
