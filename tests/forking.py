"""Functions in processes of their own, forked from one that has imported everything: a start takes seconds less."""

import multiprocessing
import os
import subprocess
import tempfile
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["gensupcon_jax.main", "gensupcon_jax.run.train", "clu.metric_writers", "tests.running"]
)


class Forked:
    """What subprocess.Popen with two pipes is to a command, to a function of a module; jax has not looked for devices yet."""

    def __init__(self, function, *arguments, environment):
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for path in self._outputs:
            path.touch()
        self._process = _CONTEXT.Process(
            target=_call, args=(self._outputs, environment, function, arguments), daemon=True
        )
        self._process.start()

    @property
    def returncode(self):
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode

    def written(self):
        """What it has written up to now, on both outputs."""
        return [path.read_text() for path in self._outputs]

    def communicate(self, timeout=None):
        """Both outputs, when it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout, *self.written())
        return self.written()

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()


def _call(outputs, environment, function, arguments):
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.update(environment)
    function(*arguments)
