#!/usr/bin/env bash
# Train on a TPU VM, of one worker or a whole pod: the same command runs on every worker.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh COMMAND --name NAME --zone ZONE [options] [-- arguments of gensupcon_jax.main]

  create    ask for the TPU as a queued resource, and wait until it is there
              --topology v5e:4x4 (as in gensupcon_jax.plan), or --accelerator-type v5litepod-16 (as in gcloud)
              --runtime-version V   default: the usual one of the TPU's kind
              --spot                cheaper, may be taken away
  install   copy this folder to every worker, and install it there
  run       train on every worker and show the output; continues if the connection is lost
              --max-restarts N      how often each worker starts again after a failure; default 3
              -- --config configs/imagenet.py --workdir gs://bucket/imagenet
  follow    show the output of what runs there, from its beginning
  stop      ask the run to save and end, and wait until it has
  delete    give the TPU back

  --project P    default: gcloud's
  --dry-run      print the commands, run nothing

Ctrl-C during run is stop. After a TPU was taken away: delete, create, install and the same run resume from the last
checkpoint, if the workdir is gs://.
TEXT
}

fail() {
  echo "error: $1; see launch/tpu_vm.sh --help" >&2
  exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
command='' name='' zone='' project='' topology='' accelerator_type='' runtime_version='' spot='' dry_run=''
max_restarts=3
training=()

if (($#)) && [[ $1 != -* ]]; then
  command=$1
  shift
fi
while (($#)); do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=yes ;;
    --spot) spot=yes ;;
    --name | --zone | --project | --topology | --accelerator-type | --runtime-version | --max-restarts)
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
case $command in
  create | install | run | follow | stop | delete) ;;
  '') fail 'the command is missing; allowed: create, install, run, follow, stop, delete' ;;
  *) fail "the command is $command; allowed: create, install, run, follow, stop, delete" ;;
esac
[[ -n $name ]] || fail '--name is missing'
[[ -n $zone ]] || fail '--zone is missing, for example --zone us-west4-a'
[[ $max_restarts =~ ^[0-9]+$ ]] || fail "--max-restarts is $max_restarts; allowed: a whole number from 0"
where=("--zone=$zone" ${project:+"--project=$project"})

# The words as a shell takes them back: quoted where they must be.
quoted() {
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

# Say a command and run it, or only print it.
run() {
  if [[ -n $dry_run ]]; then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

# A command line for every worker.
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all "--command=$1"
}

# The flags that say which TPU, and its usual runtime, from --topology or --accelerator-type.
describe_tpu() {
  [[ -z $topology || -z $accelerator_type ]] || fail 'both --topology and --accelerator-type are given'
  local kind=${accelerator_type%%-*}
  if [[ -n $topology ]]; then
    local number='[1-9][0-9]*'
    [[ $topology =~ ^((v5e|v6e):${number}x${number}|(v4|v5p):${number}x${number}x${number})$ ]] ||
      fail "--topology is $topology; allowed: v5e or v6e with two sides, v4 or v5p with three, like v5e:4x4 or v4:2x2x4"
    kind=${topology%%:*}
    local shape=${topology#*:} shapes=''
    case $kind in # of each size the accelerator type has one shape; with another one the links of the chips would be other ones
      v5e | v6e) shapes='1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16' ;;
      v5p) shapes='2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24' ;;
    esac
    [[ -z $shapes || " $shapes " == *" $shape "* ]] || fail "--topology is $topology; allowed shapes of $kind: $shapes"
    local chips=$((${shape//x/*}))
    case $kind in
      v4) tpu=(--type=v4 "--topology=$shape") ;;
      v5e) tpu=("--accelerator-type=v5litepod-$chips") ;;
      v5p) tpu=("--accelerator-type=v5p-$((2 * chips))") ;; # its number is of cores
      v6e) tpu=("--accelerator-type=v6e-$chips") ;;
    esac
  elif [[ -n $accelerator_type ]]; then
    tpu=("--accelerator-type=$accelerator_type")
  else
    fail 'which TPU is missing: --topology v5e:4x4, or --accelerator-type v5litepod-16'
  fi
  if [[ -z $runtime_version ]]; then
    case $kind in
      v5e | v5litepod) runtime_version=v2-alpha-tpuv5-lite ;;
      v5p) runtime_version=v2-alpha-tpuv5 ;;
      v6e) runtime_version=v2-alpha-tpuv6e ;;
      *) runtime_version='tpu-ubuntu2204-base' ;;
    esac
  fi
}

wait_until_active() {
  local state=''
  local ask=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)')
  if [[ -n $dry_run ]]; then
    run "${ask[@]}"
    echo '# ... again every 30 seconds, until it says ACTIVE'
    return
  fi
  while state=$("${ask[@]}"); do
    case $state in
      ACTIVE) echo "$name is there" >&2 && return ;;
      FAILED | SUSPENDED | SUSPENDING | DELETING)
        echo "error: $name is $state; see gcloud compute tpus queued-resources describe $name ${where[*]}" >&2
        exit 1
        ;;
    esac
    echo "$name is ${state:-not known yet}; looking again in 30 s" >&2
    sleep "${POLL_SECONDS:-30}"
  done
  exit 1
}

install_on_workers() {
  local archive
  archive=${TMPDIR:-/tmp}/gensupcon_jax.tar.gz
  run tar --create --gzip "--file=$archive" --exclude=./.git --exclude=./.venv --exclude=./runs "--directory=$root" .
  run gcloud compute tpus tpu-vm scp "$archive" "$name:" "${where[@]}" --worker=all
  on_workers 'mkdir -p gensupcon_jax && tar -xzf gensupcon_jax.tar.gz -C gensupcon_jax && bash gensupcon_jax/launch/install.sh tpu'
}

asked='' interrupted='' status=0
ask_to_stop() {
  interrupted=yes
  trap 'exit 130' INT TERM # asked again: the run saves and ends without us looking on
  [[ -z $asked ]] || return 0
  asked=yes
  echo 'asking every worker to save and end; once more: stop looking on' >&2
  on_workers 'bash gensupcon_jax/launch/worker.sh stop' < /dev/null > /dev/null || true
}

train() {
  ((${#training[@]})) || fail 'what to train is missing; put it after --, for example: -- --config configs/imagenet.py'
  local line
  line="bash gensupcon_jax/launch/worker.sh run --max-restarts $max_restarts -- $(quoted --distributed "${training[@]}")"
  if [[ -n $dry_run ]]; then
    on_workers "$line"
    return
  fi
  set -m # its own process group, which a Ctrl-C of the terminal does not reach: the output continues while the run saves
  on_workers "$line" < /dev/null &
  local shown=$!
  set +m
  trap ask_to_stop INT TERM
  while interrupted=''; do
    status=0
    wait "$shown" || status=$?
    [[ -n $interrupted ]] || exit "$status" # a signal ends a wait, not the run
  done
}

case $command in
  create)
    describe_tpu
    run gcloud compute tpus queued-resources create "$name" "--node-id=$name" "${where[@]}" \
      "${tpu[@]}" "--runtime-version=$runtime_version" ${spot:+--spot}
    wait_until_active
    ;;
  install) install_on_workers ;;
  run) train ;;
  follow) on_workers 'bash gensupcon_jax/launch/worker.sh follow' ;;
  stop) on_workers 'bash gensupcon_jax/launch/worker.sh stop' ;;
  delete) run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet ;;
esac
