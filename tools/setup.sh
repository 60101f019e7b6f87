#!/usr/bin/env bash
# Creates the virtual environment $1 and installs Aurora into it with all development dependencies.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

command -v "$python" >/dev/null || {
    echo "setup: $python not found; install Python 3.11 or later, or choose one: make PYTHON=…" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $("$python" --version) is too old; choose Python 3.11 or later: make PYTHON=…" >&2
    exit 1
}
"$python" -c 'import ensurepip' 2>/dev/null || {
    echo "setup: $python has no ensurepip; install it (Debian: apt-get install python3-venv)" >&2
    exit 1
}

echo "setup: creating $venv with $("$python" --version); torch alone takes about two minutes"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --progress-bar off --constraint constraints.txt --editable '.[dev]' |
    sed -u -n 's/^Collecting \([^ ]*\).*/setup: fetching \1/p; s/^Installing collected.*/setup: installing/p; s/^Successfully.*/setup: done/p'
