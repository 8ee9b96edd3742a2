#!/usr/bin/env bash
# Train on the GPUs of one or several nodes of a SLURM cluster.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/slurm.sh --nodes N --gpus-per-node G [options] -- arguments of gensupcon_jax.main

  --process-per gpu|node   one process for each GPU (default), or one with all GPUs of a node
  --cpus-per-process C     default: the cluster's
  --time T                 the job's time limit, as in sbatch; it is queued again as often as it needs more
  --partition P, --account A, --job-name J
  --sbatch OPTION          any other option of sbatch, for example --sbatch --mem=0; may be given more than once
  --max-restarts N         how often to start again after a failure; default 3
  --python P               default: .venv/bin/python of this folder, which every node must see
  --dry-run                print the job script, submit nothing

The run is asked to save three minutes before the time limit, and when SLURM needs the nodes; the job then goes back into
the queue and resumes from there. The workdir must be in a folder that every node sees, or gs://. scancel ends the job: it saves,
in the time that the cluster gives it, and does not come back.
TEXT
}

fail() {
  echo "error: $1; see launch/slurm.sh --help" >&2
  exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
nodes='' gpus_per_node='' process_per=gpu cpus_per_process='' time='' partition='' account='' job_name=gensupcon_jax
max_restarts=3 python=.venv/bin/python dry_run=''
others=() training=()

while (($#)); do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=yes ;;
    --sbatch) (($# > 1)) || fail "$1 needs a value" && others+=("$2") && shift ;;
    --nodes | --gpus-per-node | --process-per | --cpus-per-process | --time | --partition | --account | --job-name | \
      --max-restarts | --python)
      (($# > 1)) || fail "$1 needs a value"
      variable=${1#--}
      printf -v "${variable//-/_}" %s "$2"
      shift
      ;;
    --) shift && training=("$@") && break ;;
    *) fail "unknown argument $1" ;;
  esac
  shift
done
[[ -n $nodes ]] || fail '--nodes is missing'
[[ -n $gpus_per_node ]] || fail '--gpus-per-node is missing'
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "--nodes is $nodes; allowed: a whole number from 1"
[[ $gpus_per_node =~ ^[1-9][0-9]*$ ]] || fail "--gpus-per-node is $gpus_per_node; allowed: a whole number from 1"
[[ -z $cpus_per_process || $cpus_per_process =~ ^[1-9][0-9]*$ ]] ||
  fail "--cpus-per-process is $cpus_per_process; allowed: a whole number from 1"
[[ $max_restarts =~ ^[0-9]+$ ]] || fail "--max-restarts is $max_restarts; allowed: a whole number from 0"
[[ "$root$job_name$time$partition$account" != *[[:space:]]* ]] ||
  fail 'a space is in --job-name, --time, --partition, --account or the path of this folder; SLURM ends a value there'
((${#training[@]})) || fail 'what to train is missing; put it after --, for example: -- --config configs/imagenet.py'

# JAX takes the processes from SLURM, and gives each the GPU of its number on the node, unless told which.
case $process_per in
  gpu) processes_per_node=$gpus_per_node own_gpus='' ;;
  node) processes_per_node=1 own_gpus=$(seq -s , 0 $((gpus_per_node - 1))) ;;
  *) fail "--process-per is $process_per; allowed: gpu, node" ;;
esac

# The words as a shell takes them back: quoted where they must be.
quoted() {
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

job_script() {
  local option
  cat <<TEXT
#!/bin/bash
#SBATCH --job-name=$job_name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$processes_per_node
#SBATCH --gpus-per-node=$gpus_per_node
TEXT
  for option in ${cpus_per_process:+"--cpus-per-task=$cpus_per_process"} ${time:+"--time=$time"} \
    ${partition:+"--partition=$partition"} ${account:+"--account=$account"} ${others[@]+"${others[@]}"}; do
    echo "#SBATCH $option"
  done
  cat <<TEXT
#SBATCH --chdir=$root
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
${own_gpus:+export JAX_LOCAL_DEVICE_IDS=$own_gpus
}
train() {
  srun --label ${cpus_per_process:+--cpus-per-task=$cpus_per_process }$(quoted "$python" -m gensupcon_jax.main --distributed --stopped_status=85 "${training[@]}") < /dev/null &
  step=\$!
  while interrupted=; do
    wait "\$step"
    status=\$?
    [[ -n \$interrupted ]] || break # a signal ends a wait, not the step
  done
}

# Before the time limit SLURM tells this shell, and the shell SLURM, to tell the tasks: they save and end with status 85.
# Not by way of srun: at a TERM it kills them.
canceled=
trap 'interrupted=yes; scancel --signal=TERM "\$SLURM_JOB_ID"' USR1
# scancel and preemption tell the tasks themselves; what was preempted SLURM queues again.
trap 'interrupted=yes canceled=yes' TERM
for ((restarts_left = $max_restarts; ; restarts_left--)); do
  train
  case \$status in
    0) exit 0 ;;
    85) [[ -n \$canceled ]] || scontrol requeue "\$SLURM_JOB_ID" && exit 0 ;;
  esac
  [[ -z \$canceled ]] || exit "\$status"
  ((restarts_left)) || exit "\$status"
  echo "status \$status; starts again in 10 s, \$((restarts_left - 1)) restarts left after this" >&2
  sleep 10
done
TEXT
}

if [[ -n $dry_run ]]; then
  job_script
else
  job_script | tee /dev/stderr | sbatch
fi
