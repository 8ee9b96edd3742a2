"""The comparison as plain text, for the terminal."""

from gensupcon_jax.compare.page import RunsComparison
from gensupcon_jax.compare.results import ResultTable
from gensupcon_jax.report.values import short
from gensupcon_jax.text import aligned

_LONGEST = 40  # letters of a value


def as_text(found: RunsComparison) -> str:
    """What differs, the results, mean and spread over seeds, notes, and a sentence for each comparison."""
    parts = [_fields(found), _table(found.results)]
    if found.seeds:
        parts.append("mean and standard deviation over seeds\n" + _table(found.seeds))
    parts += [_table(each) for each in (found.measures, found.times) if each]
    parts += ["\n".join(found.notes), "\n".join(found.sentences)]
    return "\n\n".join(part for part in parts if part)


def _fields(found: RunsComparison) -> str:
    if not found.fields:
        return f"all {found.num_equal} config fields and the data are equal"
    rows = [["field", *(run.name for run in found.runs)]]
    rows += [[row.field, *(short(value, _LONGEST) for value in row.values)] for row in found.fields]
    return f"{aligned(rows)}\n({found.num_equal} config fields are equal)"


def _table(table: ResultTable) -> str:
    return aligned([table.heading, *table.rows])
