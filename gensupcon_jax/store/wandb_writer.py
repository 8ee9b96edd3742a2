"""Logging to Weights & Biases, only on request: no other module imports the package."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gensupcon_jax.paths import Path, absolute


class WandbWriter:
    """Logs rows to the project `gensupcon_jax`; a run that resumes in its workdir continues the same W&B run."""

    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]  (only --wandb needs it)

        fingerprint = hashlib.sha256(str(absolute(workdir)).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project="gensupcon_jax", name=workdir.name, id=fingerprint, resume="allow", config=dict(config)
        )

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One row."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Wait until everything is uploaded."""
        self._run.finish()
