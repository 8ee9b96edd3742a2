"""Which files are lists of images, by their suffix; imports nothing heavy, as command lines ask before all else."""

from pathlib import Path

# The suffix of a list -> the form of its `dataset.name`.
LIST_FORMS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def list_form_of(path: str) -> str | None:
    """The form of the list in a file, "csv" or "parquet", by its suffix; None for another file, and for one that is not there."""
    form = LIST_FORMS.get(Path(path).suffix.lower())
    return form if form and Path(path).expanduser().is_file() else None
