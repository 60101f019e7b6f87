#!/usr/bin/env bash
# Builds an image for each component, $IMAGE_PREFIX-<component>:$TAG, with the builder found.
# $BUILD_ARGS: extra options for the builder, for example --build-arg PIP_EXTRA_INDEX_URL=….
set -euo pipefail
cd "$(dirname "$0")/.."

components=(operator buffer inference trainer)
prefix=${IMAGE_PREFIX:-aurora}
tag=${TAG:-$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)}
read -ra options <<<"${BUILD_ARGS:-}"

if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    build=(docker buildx build --load)
elif command -v podman >/dev/null; then
    build=(podman build)
elif command -v buildah >/dev/null; then
    build=(buildah build)
else
    echo "images: no builder found: docker with buildx and a running daemon, podman or buildah;" >&2
    echo "images: install one of them (Debian: apt-get install podman) and rerun" >&2
    exit 1
fi

echo "images: building with ${build[0]}"
for component in "${components[@]}"; do
    name="$prefix-$component:$tag"
    echo "images: $name"
    "${build[@]}" "${options[@]}" --file deploy/docker/Dockerfile --target "$component" --tag "$name" .
done
