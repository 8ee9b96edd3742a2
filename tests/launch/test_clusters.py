"""The launchers for machines that are rented: what they would run, and what they do with stand-ins for gcloud and SLURM."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import REFERENCE, ROOT

GOLDEN = REFERENCE / "launch"
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
IMAGENET = ["--config", "configs/imagenet.py", "--workdir", "gs://bucket/imagenet"]
QUOTED = ["--config", "configs/digits.py", "--config.evaluate.neighbors=(1, 3)", "--workdir", "it's mine"]

DRY_RUNS = {
    "local_one_process": ["local.py", "--gpus", "all", "--max-restarts", "3", "--", *QUOTED],
    "local_processes": ["local.py", "--processes", "2", "--devices", "2", "--port", "1234", "--", *QUOTED],
    "local_gpus": ["local.py", "--processes", "2", "--gpus", "0,1,4,5", "--port", "1234", "--", *IMAGENET],
    "tpu_vm_create": ["tpu_vm.sh", "create", "--name", "pod", "--zone", "us-west4-a", "--topology", "v5e:4x4"],
    "tpu_vm_create_v4": ["tpu_vm.sh", "create", "--name", "pod", "--zone", "us-central2-b", "--topology", "v4:2x2x4",
                         "--spot", "--project", "mine"],
    "tpu_vm_create_v5p": ["tpu_vm.sh", "create", "--name", "pod", "--zone", "us-east5-a", "--topology", "v5p:2x2x2"],
    "tpu_vm_create_by_type": ["tpu_vm.sh", "create", "--name", "pod", "--zone", "us-east5-b", "--accelerator-type", "v6e-16"],
    "tpu_vm_install": ["tpu_vm.sh", "install", "--name", "pod", "--zone", "us-west4-a"],
    "tpu_vm_run": ["tpu_vm.sh", "run", "--name", "pod", "--zone", "us-west4-a", "--", *QUOTED],
    "tpu_vm_follow": ["tpu_vm.sh", "follow", "--name", "pod", "--zone", "us-west4-a"],
    "tpu_vm_stop": ["tpu_vm.sh", "stop", "--name", "pod", "--zone", "us-west4-a"],
    "tpu_vm_delete": ["tpu_vm.sh", "delete", "--name", "pod", "--zone", "us-west4-a"],
    "slurm_gpu": ["slurm.sh", "--nodes", "2", "--gpus-per-node", "4", "--", *QUOTED],
    "slurm_node": ["slurm.sh", "--nodes", "2", "--gpus-per-node", "4", "--process-per", "node", "--time", "1-0",
                   "--cpus-per-process", "32", "--partition", "gpu", "--account", "vision", "--job-name", "imagenet",
                   "--sbatch", "--mem=0", "--max-restarts", "1", "--", *IMAGENET],
    "gke_tpu": ["gke.py", "--name", "imagenet", "--image", "registry/gensupcon:1", "--topology", "v5e:4x4", "--spot",
                "--", *QUOTED],
    "gke_gpu": ["gke.py", "--name", "imagenet", "--image", "registry/gensupcon:1", "--gpu", "nvidia-h100-80gb",
                "--gpus-per-host", "8", "--hosts", "2", "--", *IMAGENET, "--config.dataset.folder=$(HOME)"],
}  # fmt: skip


def launch(script, *arguments, **settings):
    command = [sys.executable] if script.endswith(".py") else ["bash"]
    command += [str(ROOT / "launch" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **settings)


def dry_run(name):
    script, *arguments = DRY_RUNS[name]
    divide = arguments.index("--") if "--" in arguments else len(arguments)
    environment = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
    done = launch(script, *arguments[:divide], "--dry-run", *arguments[divide:], env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.replace(sys.executable, "python").replace(str(ROOT), "/home/you/gensupcon_jax")


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_what_would_run(name):
    # To write it anew after a change that is meant: python -m tests.launch.test_clusters
    assert dry_run(name) == (GOLDEN / f"{name}.txt").read_text()


def test_every_golden_text_is_compared():
    assert {path.stem for path in GOLDEN.iterdir()} == set(DRY_RUNS)


@pytest.mark.parametrize(
    "name", ["local_processes", "tpu_vm_create", "tpu_vm_install", "tpu_vm_run", "slurm_gpu", "gke_tpu"]
)
def test_the_page_shows_what_is_printed(name):
    shown = "\n".join(f"    {line}" if line else "" for line in (GOLDEN / f"{name}.txt").read_text().splitlines())
    assert shown in (ROOT / "docs/launch.md").read_text()


@pytest.mark.parametrize("name", [name for name in DRY_RUNS if name.startswith("gke")])
def test_the_manifest_is_yaml_without_open_places(name):
    manifest = yaml.safe_load(dry_run(name))
    (job,) = manifest["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    assert manifest["kind"] == "JobSet"
    assert pods["parallelism"] == pods["completions"] == {"gke_tpu": 4, "gke_gpu": 2}[name]
    assert container["command"][:3] == ["python", "-m", "gensupcon_jax.main"]
    # What Kubernetes makes of it: $$ is $, and only its own variable stands in $( ).
    assert re.findall(r"(?<!\$)\$\((\w+)\)", " ".join(container["command"])) == (
        ["JOB_COMPLETION_INDEX"] if name == "gke_gpu" else []
    )
    assert not re.search(r"\$\{?[a-z]", dry_run(name))


@pytest.mark.parametrize(
    ("topology", "hosts", "chips"),
    [
        ("v5e:1x1", 1, 1),
        ("v5e:2x2", 1, 4),
        ("v5e:2x4", 1, 8),
        ("v6e:4x4", 4, 4),
        ("v4:2x2x1", 1, 4),
        ("v5p:4x4x4", 16, 4),
    ],
)
def test_a_slice_has_its_hosts(topology, hosts, chips):
    done = launch("gke.py", "--name", "a", "--image", "i", "--topology", topology, "--dry-run", "--", *IMAGENET)
    assert f"parallelism: {hosts}\n" in done.stdout
    assert done.stdout.count(f"google.com/tpu: {chips}\n") == 2


def test_the_scripts_are_clean(tmp_path):
    assert SHELLCHECK.exists(), "the dev extra is not installed: make test installs it"
    jobs = []
    for name in ("slurm_gpu", "slurm_node"):
        jobs.append(tmp_path / f"{name}.sh")
        jobs[-1].write_text(dry_run(name))
    done = subprocess.run([SHELLCHECK, *sorted((ROOT / "launch").glob("*.sh")), *jobs], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("tpu_vm.sh", [], "the command is missing; allowed: create, install, run, follow, stop, delete"),
        ("tpu_vm.sh", ["go"], "the command is go; allowed: create, install, run, follow, stop, delete"),
        ("tpu_vm.sh", ["run"], "--name is missing"),
        ("tpu_vm.sh", ["run", "--name", "a"], "--zone is missing, for example --zone us-west4-a"),
        ("tpu_vm.sh", ["run", "--name"], "--name needs a value"),
        ("tpu_vm.sh", ["run", "--nme", "a"], "unknown argument --nme"),
        ("tpu_vm.sh", ["run", "--name", "a", "--zone", "z"], "what to train is missing; put it after --, for example: "
                                                           "-- --config configs/imagenet.py"),
        ("tpu_vm.sh", ["run", "--name", "a", "--zone", "z", "--max-restarts", "x", "--", "x"],
         "--max-restarts is x; allowed: a whole number from 0"),
        ("tpu_vm.sh", ["create", "--name", "a", "--zone", "z"],
         "which TPU is missing: --topology v5e:4x4, or --accelerator-type v5litepod-16"),
        ("tpu_vm.sh", ["create", "--name", "a", "--zone", "z", "--topology", "v9:2x2"],
         "--topology is v9:2x2; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"),
        ("tpu_vm.sh", ["create", "--name", "a", "--zone", "z", "--topology", "v4:08x1x1"],
         "--topology is v4:08x1x1; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"),
        ("tpu_vm.sh", ["create", "--name", "a", "--zone", "z", "--topology", "v5e:2x8"],
         "--topology is v5e:2x8; allowed shapes of v5e: 1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
        ("tpu_vm.sh", ["create", "--name", "a", "--zone", "z", "--topology", "v4:2x2x1", "--accelerator-type", "v4-8"],
         "both --topology and --accelerator-type are given"),
        ("slurm.sh", ["--", "x"], "--nodes is missing"),
        ("slurm.sh", ["--nodes", "1", "--", "x"], "--gpus-per-node is missing"),
        ("slurm.sh", ["--nodes", "0", "--gpus-per-node", "1", "--", "x"], "--nodes is 0; allowed: a whole number from 1"),
        ("slurm.sh", ["--nodes", "1", "--gpus-per-node", "1", "--process-per", "core", "--", "x"],
         "--process-per is core; allowed: gpu, node"),
        ("slurm.sh", ["--nodes", "1", "--gpus-per-node", "1"], "what to train is missing; put it after --, for example: "
                                                              "-- --config configs/imagenet.py"),
        ("gke.py", ["--image", "i"], "--name is missing"),
        ("gke.py", ["--name", "a"], "--image is missing"),
        ("gke.py", ["--name", "A_b", "--image", "i"], "--name is 'A_b'; allowed: at most 40 small letters, digits and -, a "
                                                     "letter first"),
        ("gke.py", ["--name", "a", "--image", "i", "--", "x"], "which machines? give --topology v5e:4x4 for a TPU slice, or "
                                                              "--gpu with its name"),
        ("gke.py", ["--name", "a", "--image", "i", "--topology", "v4:1x2x3", "--", "x"],
         "--topology is 'v4:1x2x3': 6 chips do not fill hosts of 4"),
        ("gke.py", ["--name", "a", "--image", "i", "--topology", "v5e", "--", "x"],
         "--topology is 'v5e'; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"),
        ("gke.py", ["--name", "a", "--image", "i", "--topology", "v5e:2x8", "--", "x"],
         "--topology is 'v5e:2x8'; allowed shapes of v5e: 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("gke.py", ["--name", "a", "--image", "i", "--topology", "v4:4x4", "--", "x"],
         "--topology is 'v4:4x4'; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"),
        ("gke.py", ["--name", "a", "--image", "i", "--gpu", "g", "--hosts", "2", "--", "x"],
         "--gpus-per-host is None; with --gpu it must be a whole number from 1"),
        ("gke.py", ["--name", "a", "--image", "i", "--gpu", "g"], "what to train is missing; put it after --, for example: "
                                                                 "-- --config configs/imagenet.py"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(script, arguments, message):
    done = launch(script, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.removesuffix(f"; see launch/{script} --help\n").removesuffix("\n") == f"error: {message}"


@pytest.mark.parametrize("script", ["local.py", "tpu_vm.sh", "slurm.sh", "gke.py"])
def test_help_is_given(script):
    done = launch(script, "--help")
    assert done.returncode == 0
    assert "--dry-run" in done.stdout
    assert done.stderr == ""


# --- The whole of tpu_vm.sh, with a gcloud whose workers are folders of this machine. ---

GCLOUD = """#!/bin/bash
echo "$*" >> "$CLOUD/calls"
case "$*" in
  *queued-resources\\ describe*)
    head -n 1 "$CLOUD/states"
    sed -i 1d "$CLOUD/states" ;;
  *tpu-vm\\ ssh*--worker=all*)
    for worker in "$CLOUD"/worker*; do
      (cd "$worker" && exec setsid --wait bash -c "${!#/#--command=/}") & running+=($!)
    done
    status=0
    for process in "${running[@]}"; do wait "$process" || status=$?; done
    exit $status ;;
esac
"""

TRAINER = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda number, frame: (print("saved", flush=True), sys.exit(0)))
print(sys.argv[1:], flush=True)
Path("starts").write_text((Path("starts").read_text() if Path("starts").exists() else "") + "x")
status = int(Path("status").read_text())
if status >= 0: sys.exit(status)
Path("trains").touch()
time.sleep(60)
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "gcloud").write_text(GCLOUD)
    (bin_folder / "gcloud").chmod(0o755)
    for index in range(2):
        package = tmp_path / f"worker{index}/gensupcon_jax"
        for folder in ("launch", "gensupcon_jax", ".venv/bin"):
            (package / folder).mkdir(parents=True)
        (package / "launch/worker.sh").write_text((ROOT / "launch/worker.sh").read_text())
        quick = (ROOT / "launch/local.py").read_text().replace("RESTART_DELAY_SECONDS = 5", "RESTART_DELAY_SECONDS = 0")
        (package / "launch/local.py").write_text(quick)
        (package / "gensupcon_jax/main.py").write_text(TRAINER)
        (package / "status").write_text("0")
        (package / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "states").touch()
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CLOUD", str(tmp_path))
    monkeypatch.setenv("POLL_SECONDS", "0")
    return tmp_path


def packages(cloud):
    return [cloud / f"worker{index}/gensupcon_jax" for index in range(2)]


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


WHERE = ["--name", "pod", "--zone", "z"]


def test_create_waits_until_the_tpu_is_there(cloud):
    (cloud / "states").write_text("WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\nNEVER_ASKED\n")
    done = launch("tpu_vm.sh", "create", *WHERE, "--topology", "v5e:4x4")
    assert done.returncode == 0
    assert "pod is PROVISIONING; looking again" in done.stderr
    assert (cloud / "states").read_text() == "NEVER_ASKED\n"


def test_create_says_when_there_will_be_none(cloud):
    (cloud / "states").write_text("PROVISIONING\nFAILED\n")
    done = launch("tpu_vm.sh", "create", *WHERE, "--topology", "v5e:4x4")
    assert done.returncode == 1
    assert "error: pod is FAILED; see gcloud compute tpus queued-resources describe pod --zone=z" in done.stderr


def test_run_trains_on_every_worker_with_the_same_arguments(cloud):
    done = launch("tpu_vm.sh", "run", *WHERE, "--", *QUOTED)
    assert done.returncode == 0
    assert done.stdout.count(str(["--distributed", *QUOTED])) == 2


def test_run_ends_with_the_status_of_a_worker_that_fails_and_starts_it_again_before(cloud):
    (packages(cloud)[1] / "status").write_text("3")
    done = launch("tpu_vm.sh", "run", *WHERE, "--max-restarts", "2", "--", *IMAGENET)
    assert done.returncode == 3
    assert [(package / "starts").read_text() for package in packages(cloud)] == ["x", "xxx"]


def test_a_second_connection_finds_the_run_and_starts_no_other(cloud):
    for package in packages(cloud):
        (package / "status").write_text("-1")
    first = subprocess.Popen(
        ["bash", ROOT / "launch/tpu_vm.sh", "run", *WHERE, "--", *IMAGENET],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for package in packages(cloud):
        wait_for(package / "trains")
    os.killpg(first.pid, signal.SIGKILL)  # the connection is lost
    first.wait(timeout=30)
    second = subprocess.Popen(
        ["bash", ROOT / "launch/tpu_vm.sh", "run", *WHERE, "--", *IMAGENET],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = second.stderr.readline()
    while "a run is active here" not in line:
        assert line, "the run was not found"
        line = second.stderr.readline()
    stopped = launch("tpu_vm.sh", "stop", *WHERE)
    stdout, _ = second.communicate(timeout=30)
    assert (stopped.returncode, second.returncode) == (0, 0)
    assert stdout.count("saved") == 2  # its whole output, and the end of the run that was found
    assert [(package / "starts").read_text() for package in packages(cloud)] == ["x", "x"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_run_reaches_the_trainers_and_their_last_words_are_shown(cloud, number):
    for package in packages(cloud):
        (package / "status").write_text("-1")
    process = subprocess.Popen(
        ["bash", ROOT / "launch/tpu_vm.sh", "run", *WHERE, "--", *IMAGENET],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    for package in packages(cloud):
        wait_for(package / "trains")
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # as a terminal does
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert stdout.count("saved") == 2


def test_stop_and_follow_say_when_nothing_runs(cloud):
    assert "nothing runs here" in launch("tpu_vm.sh", "stop", *WHERE).stderr
    done = launch("tpu_vm.sh", "follow", *WHERE)
    assert "nothing was started here" in done.stderr
    assert done.returncode == 1


# --- The job of slurm.sh, with commands that stand in for SLURM's. ---

SLURM = {
    "sbatch": 'cat > "$CLUSTER/job"',
    # As the real one, it kills its tasks when it gets a TERM.
    "srun": "while [[ $1 == --* ]]; do shift; done\ntrap 'kill -KILL \"$task\"; exit 137' TERM\n"
    '"$@" & task=$!; echo "$task" > "$CLUSTER/task"; wait "$task"',
    "scancel": '[[ $* == "--signal=TERM 77" ]] && kill -TERM "$(< "$CLUSTER/task")"',
    "scontrol": 'echo "$*" >> "$CLUSTER/scontrol"',
    "sleep": "true",
}
STEP = """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[-1])
with (folder / "starts").open("a") as file: file.write("x")
status = (folder / "statuses").read_text().split()[len((folder / "starts").read_text()) - 1]
if status != "wait": sys.exit(int(status))
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(85))
(folder / "trains").touch()
time.sleep(60)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    for name, body in SLURM.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    (tmp_path / "gensupcon_jax").mkdir()
    (tmp_path / "gensupcon_jax/main.py").write_text(STEP)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    return tmp_path


def start_job(cluster, statuses):
    (cluster / "statuses").write_text(statuses)
    resources = ["--nodes", "1", "--gpus-per-node", "1", "--max-restarts", "2", "--python", sys.executable]
    handed_in = launch("slurm.sh", *resources, "--", "--config", "x", "--workdir", str(cluster))
    assert handed_in.returncode == 0
    assert "#SBATCH --nodes=1\n" in handed_in.stderr  # what runs is said
    return subprocess.Popen(["bash", cluster / "job"], cwd=cluster, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("statuses", "starts", "expected"), [("0", 1, 0), ("3 0", 2, 0), ("3 4 5 0", 3, 5)], ids=str
)  # fmt: skip
def test_a_step_that_fails_starts_again_until_the_limit(cluster, statuses, starts, expected):
    job = start_job(cluster, statuses)
    job.communicate(timeout=60)
    assert job.returncode == expected
    assert len((cluster / "starts").read_text()) == starts
    assert not (cluster / "scontrol").exists()


def test_before_its_time_limit_the_job_saves_and_goes_back_into_the_queue(cluster):
    job = start_job(cluster, "wait")
    wait_for(cluster / "trains")
    job.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@180 does, to the batch shell alone
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert (cluster / "scontrol").read_text() == "requeue 77\n"
    assert (cluster / "starts").read_text() == "x"


def test_a_canceled_job_saves_and_does_not_come_back(cluster):
    job = start_job(cluster, "wait")
    wait_for(cluster / "trains")
    job.send_signal(signal.SIGTERM)  # scancel and preemption tell the shell and the tasks
    os.kill(int((cluster / "task").read_text()), signal.SIGTERM)
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert not (cluster / "scontrol").exists()
    assert (cluster / "starts").read_text() == "x"


def test_a_job_name_with_a_space_is_refused():
    done = launch("slurm.sh", "--nodes", "1", "--gpus-per-node", "1", "--job-name", "my run", "--", "--config", "x")
    assert (done.returncode, "a space is in --job-name" in done.stderr) == (2, True)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in DRY_RUNS:
        (GOLDEN / f"{case}.txt").write_text(dry_run(case))
