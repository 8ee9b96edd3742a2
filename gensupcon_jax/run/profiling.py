"""Profiles of some training steps (`--profile`), which TensorBoard, XProf and Perfetto open."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from gensupcon_jax import paths
from gensupcon_jax.cluster import processes
from gensupcon_jax.disk import writing
from gensupcon_jax.paths import Path

FOLDER = "profile"  # in the workdir
_STEP = "train"  # under this name TensorBoard finds the steps


class Profiler:
    """Writes a profile of these steps below the workdir; each process writes its own.

    As a context: one that is open when training ends early is written as it is.
    """

    def __init__(self, steps: range, folder: Path, say_fn: Callable[[str], None]):
        self._steps, self._say_fn = steps, say_fn
        group = processes.group()
        self._folder = folder / FOLDER
        if group.num_processes > 1:  # a name in it is that of the machine, which several processes may share
            self._folder = self._folder / f"process_{group.process_id}"
        self._is_open = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            self._close("the steps until the run ended early")

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """The context in which a step is sent to the devices."""
        if step not in self._steps:
            yield
            return
        if not self._is_open:
            self._open()
        with jax.profiler.StepTraceAnnotation(_STEP, step_num=step):
            yield

    def is_last(self, step: int) -> bool:
        """Whether the profile ends with this step."""
        return self._is_open and step == self._steps[-1]

    def finish(self, outputs: Any) -> None:
        """Wait for the outputs of the last step, and write the profile."""
        jax.block_until_ready(outputs)
        self._close(f"steps {self._steps[0]} to {self._steps[-1]}")

    def _open(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each call in Python would slow the steps, and fill the profile
        paths.make_folder(self._folder)
        jax.profiler.start_trace(str(self._folder), profiler_options=options)
        self._is_open = True

    def _close(self, what: str) -> None:
        self._is_open = False
        started = time.monotonic()
        with writing(self._folder, what=f"the profile in {self._folder}"):
            jax.profiler.stop_trace()
        self._say_fn(
            f"profile of {what}: {self._folder} (written in {time.monotonic() - started:.1f} s); "
            f"tensorboard --logdir {self._folder} shows it with pip install xprof, and https://ui.perfetto.dev opens its "
            "trace.json.gz"
        )
