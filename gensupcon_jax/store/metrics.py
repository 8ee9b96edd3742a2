"""metrics.jsonl: one row per logged step, as one JSON object per line."""

import errno
import json
import math
import os
import time
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.configs.rules import optional
from gensupcon_jax.disk import refuse_lost, writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import COUNT, NUMBER, TEXTS, check_fields, parsed
from gensupcon_jax.paths import Path
from gensupcon_jax.store.workdir import METRICS

ADVICE = "advice"  # the name in a row of the sentences that the run said at its step
_REWRITE_SECONDS = 60.0
_VALUE = optional(NUMBER)  # a value that was not finite is null
_RULES = {"step": COUNT, ADVICE: TEXTS}


def read_metrics(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl, oldest first; a truncated last line, left by a kill, is ignored.

    Raises UserError, with the line number, for any other line that is not a row.
    """
    path = workdir / METRICS
    if not paths.exists(path):
        return []
    try:
        lines = path.read_bytes().decode().split("\n")
    except (*paths.failures(), ValueError) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({error}); move it away, or choose another --workdir") from error
    finished = lines[:-1]  # the part after the last newline is incomplete
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(finished, start=1) if line]


def _row(line: str, where: str) -> dict:
    remedy = "remove this line, or choose another --workdir"
    try:
        row = parsed(line)
    except ValueError as error:
        raise UserError(f"{where}, cannot be read ({error}); {remedy}") from error
    if not isinstance(row, dict) or not COUNT.allows(row.get("step")):
        raise UserError(f"{where}, is not a row of metrics with a step; {remedy}")
    check_fields(row, dict.fromkeys(row, _VALUE) | _RULES, (), where=f"{where},", remedy=remedy)
    return row


class MetricsFile:
    """Appends rows to metrics.jsonl; resuming from a step drops later rows.  kept: the earlier rows.

    Objects on gs:// cannot be appended to: there the file is rewritten by `flush` and once per minute.
    """

    def __init__(self, workdir: Path, start_step: int):
        self._path = workdir / METRICS
        self.kept = [row for row in read_metrics(workdir) if row["step"] <= start_step]
        self._lines = [_line(row) for row in self.kept]
        self._rewrite()
        with writing(self._path):
            self._file = None if paths.is_remote(workdir) else self._path.open("a")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One row; a value that is not finite is null in the file."""
        line = _line({"step": step, **values})
        with writing(self._path):
            if self._file is not None:
                self._file.write(line)
                self._file.flush()
            else:
                self._lines.append(line)
                if time.monotonic() - self._written_at > _REWRITE_SECONDS:
                    self._rewrite()

    def flush(self) -> None:
        """Make all rows durable; called before a checkpoint, since a restart resumes from there.

        Raises UserError if the file has gone: a checkpoint beside it would be in a new folder that is no whole run.
        """
        if self._file is None:
            self._rewrite()
            return
        with writing(self._path):
            if not os.path.samestat(os.fstat(self._file.fileno()), paths.LocalPath(self._path).stat()):
                raise FileNotFoundError(errno.ENOENT, "another file has taken its place", self._path)

    def close(self) -> None:
        """Flush all buffers."""
        if self._file is None:
            self._rewrite()
            return
        with writing(self._path):
            self._file.close()

    def _rewrite(self) -> None:
        paths.write_whole(self._path, "".join(self._lines).encode())
        self._written_at = time.monotonic()


def _line(row: dict) -> str:
    # NaN is not valid JSON: strict readers reject the whole file.
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(finite) + "\n"
