#!/usr/bin/env bash
# Install the package, with the extra `tensorflow`, into .venv of this folder: install.sh [tpu | cuda12 | cuda13].
# Without a fitting Python, uv brings one.
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-}
case $extra in
  '' | tpu | cuda12 | cuda13) ;;
  *) echo "error: the extra is $extra; allowed: tpu, cuda12, cuda13, or none" >&2 && exit 2 ;;
esac
package=.[tensorflow${extra:+,$extra}]

for python in python3 python3.13 python3.12 python3.11; do
  # TensorFlow has no wheel for 3.14.
  if "$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; then
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$package"
    exit
  fi
done
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python --editable "$package"
