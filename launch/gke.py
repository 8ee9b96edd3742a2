#!/usr/bin/env python3
"""Train on TPU or GPU hosts of a Google Kubernetes Engine cluster, as a JobSet.

A TPU slice, named as in `gensupcon plan`:

    python launch/gke.py --name imagenet --image IMAGE --topology v5e:4x4 -- \\
        --config configs/imagenet.py --workdir gs://bucket/imagenet

Two hosts with eight GPUs each:

    python launch/gke.py --name imagenet --image IMAGE --gpu nvidia-h100-80gb --gpus-per-host 8 --hosts 2 -- \\
        --config configs/imagenet.py --workdir gs://bucket/imagenet

The manifest goes to `kubectl apply`; with --dry-run it is only printed. The cluster needs JobSet, and node pools of that
kind; launch/Dockerfile makes the image. What follows `--` goes to `python -m gensupcon_jax.main`. The end of a pod is
announced by SIGTERM: the run saves, and the JobSet resumes elsewhere from there. `kubectl delete jobset NAME` ends it.
"""

import argparse
import json
import math
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

TEMPLATE = Path(__file__).parent / "jobset.yaml"
FLAT_SHAPES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # those that v5e and v6e have
ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
PORT = 8482


class Hosts(NamedTuple):
    """How many machines of which kind, and how their processes find each other."""

    num_hosts: int
    chips_per_host: int
    resource: str
    node_selector: dict[str, str]
    flags: list[str]
    environment: dict[str, str]


def main(argv: list[str]) -> int:
    """Render the manifest and hand it to kubectl, or print it; a mistake is one line and status 2."""
    own, training = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(
        prog="launch/gke.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", help="of the JobSet: small letters, digits and -")
    parser.add_argument("--image", help="container image with gensupcon_jax; see launch/Dockerfile")
    parser.add_argument("--topology", help="the TPU slice: v4, v5e, v5p or v6e with a shape, like v5e:4x4")
    parser.add_argument("--gpu", help="GKE's name of the GPU, like nvidia-h100-80gb")
    parser.add_argument("--gpus-per-host", type=int)
    parser.add_argument("--hosts", type=int, help="how many hosts with GPUs")
    parser.add_argument("--spot", action="store_true", help="on machines that may be taken away")
    parser.add_argument("--max-restarts", type=int, default=10, help="how often all start again; default 10")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest, apply nothing")
    options = parser.parse_args(own)
    try:
        check(options, training)
        hosts = tpu_hosts(options.topology) if options.topology else gpu_hosts(options)
        manifest = render(options, hosts, training)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    print(manifest, end="", flush=True)
    if options.dry_run:
        return 0
    command = ["kubectl", "apply", "--filename=-"]
    print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
    try:
        return subprocess.run(command, input=manifest, text=True, check=False).returncode
    except FileNotFoundError:
        parser.exit(1, "error: kubectl is not installed here; --dry-run prints the manifest without it\n")


def check(options: argparse.Namespace, training: list[str]) -> None:
    """ValueError for missing or invalid options."""
    for name in ("name", "image"):
        if not getattr(options, name):
            raise ValueError(f"--{name} is missing")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", options.name):
        raise ValueError(f"--name is {options.name!r}; allowed: at most 40 small letters, digits and -, a letter first")
    if bool(options.topology) == bool(options.gpu):
        raise ValueError("which machines? give --topology v5e:4x4 for a TPU slice, or --gpu with its name")
    if options.max_restarts < 0:
        raise ValueError(f"--max-restarts is {options.max_restarts}; allowed: a whole number from 0")
    if not training:
        raise ValueError("what to train is missing; put it after --, for example: -- --config configs/imagenet.py")


def tpu_hosts(topology: str) -> Hosts:
    """The hosts of a slice: 4 chips each, fewer on the smallest, and 8 on the 2x4 of v5e and v6e."""
    kind, _, shape = topology.partition(":")
    num_sides = {"v5e": 2, "v6e": 2, "v4": 3, "v5p": 3}.get(kind)
    if num_sides is None or not re.fullmatch("x".join(["[1-9][0-9]*"] * num_sides), shape):
        raise ValueError(
            f"--topology is {topology!r}; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"
        )
    if num_sides == 2 and shape not in FLAT_SHAPES:
        raise ValueError(f"--topology is {topology!r}; allowed shapes of {kind}: {', '.join(FLAT_SHAPES)}")
    num_chips = math.prod(map(int, shape.split("x")))
    per_host = 8 if kind in ("v5e", "v6e") and num_chips == 8 else min(num_chips, 4)
    if not num_chips or num_chips % per_host:
        raise ValueError(f"--topology is {topology!r}: {num_chips} chips do not fill hosts of {per_host}")
    selector = {
        "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[kind],
        "cloud.google.com/gke-tpu-topology": shape,
    }
    return Hosts(num_chips // per_host, per_host, "google.com/tpu", selector, ["--distributed"], {})


def gpu_hosts(options: argparse.Namespace) -> Hosts:
    """One process per host, with all its GPUs; they meet at the first pod of the JobSet."""
    for name in ("hosts", "gpus_per_host"):
        value = getattr(options, name)
        if value is None or value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; with --gpu it must be a whole number from 1")
    flags = [
        f"--coordinator_address={options.name}-hosts-0-0.{options.name}:{PORT}",
        f"--num_processes={options.hosts}",
        "--process_id=$(JOB_COMPLETION_INDEX)",  # filled in by Kubernetes
    ]
    own = {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(options.gpus_per_host)))}
    selector = {"cloud.google.com/gke-accelerator": options.gpu}
    return Hosts(options.hosts, options.gpus_per_host, "nvidia.com/gpu", selector, flags, own)


def render(options: argparse.Namespace, hosts: Hosts, training: list[str]) -> str:
    """The manifest; KeyError for a placeholder of the template that nothing fills."""
    selector = hosts.node_selector | ({"cloud.google.com/gke-spot": "true"} if options.spot else {})
    python = ["python", "-m", "gensupcon_jax.main", *hosts.flags, "--join_timeout=900", "--stopped_status=85"]
    # Kubernetes reads $(NAME) in a command as a variable; $$( is a plain $(.
    command = python + [argument.replace("$(", "$$(") for argument in training]
    lines = ("\n" + " " * 16).join(f"{key}: {json.dumps(value)}" for key, value in selector.items())
    return string.Template(TEMPLATE.read_text()).substitute(
        name=options.name,
        image=json.dumps(options.image),
        max_restarts=options.max_restarts,
        num_hosts=hosts.num_hosts,
        chips_per_host=hosts.chips_per_host,
        resource=hosts.resource,
        node_selector=lines,
        command=json.dumps(command),  # JSON is YAML
        environment=json.dumps([{"name": key, "value": value} for key, value in hosts.environment.items()]),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
