"""Detection of the cluster (Open MPI, SLURM, GKE, TPU pod): the number of processes and the index of this one.

The variables, ports and order are those of `jax.distributed.initialize`, which detects and connects in one step: too late to
report missing processes.
"""

import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gensupcon_jax.errors import UserError

_METADATA = "http://{}/computeMetadata/v1/instance/attributes/{}"  # Google's metadata server
_METADATA_SECONDS = 5.0
_METADATA_TRIES = 6
_TPU_PORT = 8482
_FIRST_PORT, _NUM_PORTS = 61440, 4096  # different ports for jobs on the same machine
_TPU_FILES = ("accel*", "vfio/[0-9]*")

MetadataFn = Callable[[str], str | None]


class Member(NamedTuple):
    """Index of this process, number of processes, and address of process 0; `local_device_ids` None: all local devices."""

    coordinator_address: str
    num_processes: int
    process_id: int
    local_device_ids: list[int] | None = None


def member_of_cluster(
    environ: Mapping[str, str],
    *,
    timeout: float = 50.0,
    devices: Path = Path("/dev"),
    metadata_fn: MetadataFn | None = None,
) -> Member:
    """The member of the cluster that this process is.

    timeout: seconds to wait until the name of a TPU pod's coordinator can be resolved.  metadata_fn: attribute of this machine
    -> its text, None if it does not exist; default: a request to Google's metadata server.
    Raises UserError if no cluster is found or its description cannot be read.
    """
    ask = metadata_fn or (lambda key: _google_metadata(key, environ.get("GCE_METADATA_IP", "metadata.google.internal")))
    has_tpu = any(found for pattern in _TPU_FILES for found in devices.glob(pattern))
    try:
        member = _of_open_mpi(environ) or _of_slurm(environ)
        of_tpus = None if member else _of_gke(environ) or (_of_tpu_pod(environ, ask) if has_tpu else None)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"--distributed: the description of the cluster cannot be read ({error})") from error
    if of_tpus is not None:
        _wait_for_name(of_tpus.coordinator_address.rpartition(":")[0], timeout)
        return of_tpus
    if member is None:
        raise UserError(
            "--distributed: no cluster was found (TPU pod, SLURM, GKE, Open MPI); "
            "set --coordinator_address, --num_processes and --process_id instead"
        )
    # jax itself reads JAX_LOCAL_DEVICE_IDS; the detected value is one GPU per process.
    return member._replace(local_device_ids=None) if "JAX_LOCAL_DEVICE_IDS" in environ else member


def _of_open_mpi(environ: Mapping[str, str]) -> Member | None:
    """The address of mpirun before version 5: "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"."""
    place = environ.get("OMPI_MCA_orte_hnp_uri")
    if place is None:
        return None
    found = re.match(r"(\d+)\..*?(?:tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]])", place)
    if found is None:
        raise ValueError(f"OMPI_MCA_orte_hnp_uri is {place!r}")
    job = int(found[1]) // _NUM_PORTS  # Open MPI's job numbers are multiples of it
    return Member(
        _address(found[2] or found[3], _port_of_job(job), environ),
        int(environ["OMPI_COMM_WORLD_SIZE"]),
        int(environ["OMPI_COMM_WORLD_RANK"]),
        [int(environ["OMPI_COMM_WORLD_LOCAL_RANK"])],
    )


def _of_slurm(environ: Mapping[str, str]) -> Member | None:
    """The member for a task of srun; the first node of "node[001-015,017],other" is node001."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if not all(name in environ for name in names):
        return None
    job, nodes, num_tasks, task, local = (environ[name] for name in names)
    host, first = re.findall(r"^([^,\[]*)(?:\[([^,\-\]]*))?", nodes)[0]
    return Member(_address(host + first, _port_of_job(int(job)), environ), int(num_tasks), int(task), [int(local)])


def _of_gke(environ: Mapping[str, str]) -> Member | None:
    """The member for a GKE pod of one or several TPU slices (MEGASCALE)."""
    file = environ.get("TPU_PROCESS_ADDRESSES_PATH")
    if file:
        workers = Path(file).read_text().strip()
    else:
        workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if not workers:
        return None
    return _of_slices(workers.split(","), int(environ["TPU_WORKER_ID"]), environ.get, environ)


def _of_tpu_pod(environ: Mapping[str, str], ask: MetadataFn) -> Member | None:
    """The member for a TPU VM, from Google's metadata server."""
    if "TPU_SKIP_MDS_QUERY" in environ or (number := ask("agent-worker-number")) is None:
        return None
    # "10.0.0.1,10.0.0.2", or in older pods "name:id:10.0.0.1,name:id:10.0.0.2".
    workers = [worker.split(":")[-1] for worker in (ask("worker-network-endpoints") or "").split(",")]
    described = dict(re.findall(r"^\s*(\w+)\s*:\s*'?(.*?)'?\s*$", ask("tpu-env") or "", re.MULTILINE))
    return _of_slices(workers, int(number), {**described, **environ}.get, environ)


def _of_slices(
    workers: list[str], worker: int, value_of: Callable[[str], str | None], environ: Mapping[str, str]
) -> Member:
    """The member for one of several slices with the same number of workers, numbered consecutively."""
    coordinator = (value_of("MEGASCALE_COORDINATOR_ADDRESS") or workers[0]).partition(":")[0]
    num_slices, number = (
        int(value_of(f"MEGASCALE_{name}") or usual) for name, usual in (("NUM_SLICES", 1), ("SLICE_ID", 0))
    )
    return Member(_address(coordinator, _TPU_PORT, environ), len(workers) * num_slices, worker + number * len(workers))


def _port_of_job(job: int) -> int:
    return _FIRST_PORT + job % _NUM_PORTS


def _address(host: str, port: int, environ: Mapping[str, str]) -> str:
    return f"{host}:{environ.get('JAX_COORDINATOR_PORT') or port}"


def _wait_for_name(host: str, timeout: float) -> None:
    """Wait until the name can be resolved: GKE registers it when the coordinator's pod starts."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.gethostbyname(host)
            return
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--distributed: the coordinator's name {host} cannot be resolved after {timeout:.0f} seconds ({error}); "
                    "is process 0 running? Increase --join_timeout to wait longer"
                ) from error
        time.sleep(min(5.0, timeout / 4))


def _google_metadata(key: str, server: str) -> str | None:
    request = urllib.request.Request(_METADATA.format(server, key), headers={"Metadata-Flavor": "Google"})
    for attempt in range(_METADATA_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError:  # the attribute does not exist, or not yet
            time.sleep(0.5 if attempt + 1 < _METADATA_TRIES else 0)
        except OSError:  # no metadata server: not a machine of Google Cloud
            return None
    return None
