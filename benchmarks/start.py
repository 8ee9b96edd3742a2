"""The seconds of a start: until a small TFDS set is in memory, and from the process to the first training step.

    python -m benchmarks.start --folder DIR

DIR: of the prepared data set. Every line is a process of its own; caches begin empty, in a temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_READ = """
import sys, time
started = time.perf_counter()
from gensupcon_jax.data import datasets, memory_cache
dataset = datasets.load(sys.argv[1], folder=sys.argv[2], arrays_folder=memory_cache.user_folder())
seconds = time.perf_counter() - started
print(f"{seconds:.2f} s: {dataset.train.num_images + dataset.validation.num_images + dataset.test.num_images} images,",
      "with TensorFlow" if "tensorflow" in sys.modules else "without TensorFlow")
"""


def main() -> None:
    """Print the seconds of two processes that read the data, and of three that train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, help="dataset.folder of the prepared data set")
    parser.add_argument("--name", default="tfds:fashion_mnist", help="dataset.name (default: %(default)s)")
    parser.add_argument("--recipe", default="fashion_mnist:supcon", help="recipe to train (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {
            "XDG_CACHE_HOME": scratch,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_ENABLE_ONEDNN_OPTS": "0",
        }
        for start in ("first", "later"):
            command = [sys.executable, "-c", _READ, options.name, options.folder]
            read = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            print(f"data in memory, {start} start: {read.stdout.strip()}", flush=True)
        flags = ["--config", options.recipe, "--workdir", str(Path(scratch) / "run")]
        flags += [f"--config.dataset.name={options.name}", f"--config.dataset.folder={options.folder}"]
        for start in ("compiled anew", "compiled programs kept", "the same again"):
            command = [sys.executable, "-m", "gensupcon_jax.main", *flags]
            print(
                f"process to first training step, {start}: {_seconds_to_first_step(command, environment):.1f} s",
                flush=True,
            )


def _seconds_to_first_step(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr or ():
            said.append(line)
            if line.startswith("step 1/"):
                seconds = time.perf_counter() - started
                process.kill()
                return seconds
    raise SystemExit("".join(said))


if __name__ == "__main__":
    main()
