"""Keep and restore the state of a run, with orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from gensupcon_jax.errors import UserError


class Checkpoints:
    """The checkpoints of one run: saved in the background, the newest `keep` kept (ours)."""

    def __init__(self, folder: Path, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, fields: dict) -> None:
        """Start to save the arrays of a state under its step; a step that is there already is left as it is."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(fields))

    def latest_step(self) -> int | None:
        """The newest saved step, None before the first."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract_fields: dict) -> dict[str, Any]:
        """The saved arrays in the given shapes, dtypes and shardings; UserError when they do not fit or are damaged."""
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract_fields))
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"the checkpoint of step {step} in {self._folder} cannot be restored ({reason}); "
                f"remove the folder {self._folder / str(step)} to continue from the one before, or choose another workdir"
            ) from error

    def close(self) -> None:
        """Wait until everything is on disk; an error of a background save is raised here."""
        self._manager.wait_until_finished()
        self._manager.close()
