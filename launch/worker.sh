#!/usr/bin/env bash
# On one worker of a TPU VM: train in the background, so that a lost connection ends nothing, and show the output.
#   worker.sh run [--max-restarts N] -- arguments of gensupcon_jax.main
#   worker.sh follow | stop
# The run's output, process and status are in worker.log, worker.pid and worker.status of the folder above.
set -euo pipefail
cd "$(dirname "$0")/.."

# A file with its content, or no file: somebody waits for it.
whole() {
  echo "$2" > "$1.new"
  mv "$1.new" "$1"
}

running() {
  [[ -f worker.pid && ! -f worker.status ]] && kill -0 "$(cat worker.pid)" 2> /dev/null
}

follow() {
  [[ -f worker.pid ]] || { echo 'nothing was started here' >&2 && exit 1; }
  tail -n +1 -s 0.2 --pid="$(cat worker.pid)" -F worker.log
  for _ in {1..50}; do
    [[ -f worker.status ]] && exit "$(cat worker.status)"
    sleep 0.1
  done
  echo 'the run was killed: its status is unknown' >&2
  exit 137
}

case ${1:-} in
  run)
    shift
    if running; then # gcloud connects again after a lost connection
      echo 'a run is active here; this is its output' >&2
    else
      rm -f worker.pid worker.status
      [[ ! -f worker.log ]] || mv worker.log worker.previous.log
      trap '' HUP
      {
        .venv/bin/python launch/local.py "$@" &
        whole worker.pid $!
        status=0
        wait $! || status=$?
        whole worker.status "$status"
      } > worker.log 2>&1 < /dev/null &
      until [[ -f worker.pid ]]; do sleep 0.05; done
    fi
    follow
    ;;
  follow) follow ;;
  stop)
    running || { echo 'nothing runs here' >&2 && exit 0; }
    kill -TERM "$(cat worker.pid)"
    follow
    ;;
  *)
    echo 'usage: launch/worker.sh run [--max-restarts N] -- arguments | follow | stop' >&2
    exit 2
    ;;
esac
