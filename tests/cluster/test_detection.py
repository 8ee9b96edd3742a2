"""Detection of the cluster from environment variables and metadata, with the values of jax.distributed.initialize."""

import http.server
import threading

import pytest

from gensupcon_jax.cluster.detection import Member, member_of_cluster
from gensupcon_jax.errors import UserError
from tests.running import free_port

# Process 5 of 8, on the second node of two.
SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "node[07-08]", "SLURM_NTASKS": "8", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1,10.108.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}  # fmt: skip


@pytest.fixture
def tpu(tmp_path):
    """/dev of a machine with TPU chips."""
    (tmp_path / "accel0").touch()
    return tmp_path


def test_under_slurm_one_process_per_gpu_uses_the_gpu_of_its_local_id():
    assert member_of_cluster(SLURM) == Member("node07:61517", 8, 5, [1])  # 61440 + 77


def test_under_slurm_one_process_per_node_uses_all_gpus():
    # As set by launch/slurm.sh --process-per node; otherwise each process would use the first GPU only.
    changes = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "JAX_LOCAL_DEVICE_IDS": "0,1,2,3"}
    assert member_of_cluster(SLURM | changes) == Member("node07:61517", 2, 1, None)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-0015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("rack-2-node[9]", "rack-2-node9"),
    ],
)
def test_the_first_node_of_the_slurm_list_is_the_coordinator(nodes, first):
    assert member_of_cluster(SLURM | {"SLURM_STEP_NODELIST": nodes}).coordinator_address == f"{first}:61517"


def test_jobs_on_one_machine_get_different_ports_unless_a_port_is_set():
    assert member_of_cluster(SLURM | {"SLURM_JOB_ID": "4096"}).coordinator_address == "node07:61440"
    assert member_of_cluster(SLURM | {"SLURM_JOB_ID": "8191"}).coordinator_address == "node07:65535"
    assert member_of_cluster(SLURM | {"JAX_COORDINATOR_PORT": "1234"}).coordinator_address == "node07:1234"


def test_the_coordinator_of_open_mpi_is_the_machine_of_mpirun():
    assert member_of_cluster(OPEN_MPI) == Member("10.96.0.1:62624", 4, 2, [0])  # 61440 + (1531576320 / 4096) % 4096
    other = {"OMPI_MCA_orte_hnp_uri": "1314521088.0;tcp6://[fe80::b9b:ac5d,2620:10d:c083:150e::3000:2]:43370"}
    assert member_of_cluster(OPEN_MPI | other).coordinator_address == "fe80::b9b:ac5d:62880"


def test_a_slice_in_gke_is_described_by_environment_variables():
    pod = {"TPU_WORKER_HOSTNAMES": "localhost,b,c,d", "TPU_WORKER_ID": "3"}
    assert member_of_cluster(pod) == Member("localhost:8482", 4, 3, None)
    second = {"MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    assert member_of_cluster(pod | second) == Member("localhost:8482", 8, 7, None)


def test_addresses_in_a_file_take_precedence(tmp_path):
    (tmp_path / "addresses").write_text("localhost,b\n")
    pod = {"TPU_PROCESS_ADDRESSES_PATH": str(tmp_path / "addresses"), "TPU_WORKER_HOSTNAMES": "x", "TPU_WORKER_ID": "0"}
    assert member_of_cluster(pod) == Member("localhost:8482", 2, 0, None)


@pytest.mark.parametrize("endpoints", ["127.0.0.1,10.0.0.2", "n0:1:127.0.0.1,n1:2:10.0.0.2"])
def test_a_tpu_pod_is_described_by_metadata(tpu, endpoints):
    metadata = {"agent-worker-number": "1", "worker-network-endpoints": endpoints}
    assert member_of_cluster({}, devices=tpu, metadata_fn=metadata.get) == Member("127.0.0.1:8482", 2, 1, None)
    metadata["tpu-env"] = "ZONE: 'us-west4-a'\nMEGASCALE_NUM_SLICES: '3'\nMEGASCALE_SLICE_ID: '2'\n"
    assert member_of_cluster({}, devices=tpu, metadata_fn=metadata.get) == Member("127.0.0.1:8482", 6, 5, None)


def test_metadata_are_requested_from_the_server(tpu):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            key = self.path.rpartition("/")[2]
            known = {"agent-worker-number": b"0", "worker-network-endpoints": b"127.0.0.1", "tpu-env": b"A: 'b'"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(known[key])

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", free_port()), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
    try:
        assert member_of_cluster(environ, devices=tpu) == Member("127.0.0.1:8482", 1, 0, None)
    finally:
        server.shutdown()
        server.server_close()
    assert asked[0] == ("/computeMetadata/v1/instance/attributes/agent-worker-number", "Google")


def test_without_a_cluster_the_error_names_the_flags(tmp_path, tpu):
    message = "no cluster was found .* set --coordinator_address, --num_processes and --process_id"
    with pytest.raises(UserError, match=message):
        member_of_cluster({}, devices=tmp_path / "none", metadata_fn={"agent-worker-number": "0"}.get)  # not asked
    with pytest.raises(UserError, match=message):
        member_of_cluster({}, devices=tpu, metadata_fn={}.get)
    with pytest.raises(UserError, match=message):
        member_of_cluster({"TPU_SKIP_MDS_QUERY": "1"}, devices=tpu, metadata_fn={"agent-worker-number": "0"}.get)
    with pytest.raises(UserError, match=message):  # no server there
        member_of_cluster({"GCE_METADATA_IP": f"127.0.0.1:{free_port()}"}, devices=tpu)


@pytest.mark.parametrize(
    "environ",
    [
        SLURM | {"SLURM_NTASKS": "many"},
        OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "nothing of that"},
        {name: value for name, value in OPEN_MPI.items() if name != "OMPI_COMM_WORLD_RANK"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_PROCESS_ADDRESSES_PATH": "/no/such/file", "TPU_WORKER_ID": "0"},
    ],
)
def test_a_description_that_cannot_be_read_is_an_error(environ):
    with pytest.raises(UserError, match=r"--distributed: the description of the cluster cannot be read \("):
        member_of_cluster(environ)


def test_a_coordinator_whose_name_cannot_be_resolved_is_named():
    pod = {"TPU_WORKER_HOSTNAMES": "no-such-name.invalid", "TPU_WORKER_ID": "0"}
    with pytest.raises(
        UserError, match=r"name no-such-name.invalid cannot be resolved after 0 seconds .* --join_timeout to wait"
    ):
        member_of_cluster(pod, timeout=0.0)
