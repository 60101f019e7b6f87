#!/usr/bin/env bash
# Builds an image for each component, $IMAGE_PREFIX-<component>:$TAG, with the builder found; with
# --sbom instead out/sbom/<component>/sbom.cdx.json, which lists the Python packages in it.
# $COMPONENTS: only these. $BUILD_ARGS: extra options for the builder, for example
# --build-arg PIP_EXTRA_INDEX_URL=… or --platform linux/arm64. $BUILDER: docker, podman or buildah.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${IMAGE_PREFIX:-aurora}
tag=${TAG:-$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)}
read -ra components <<<"${COMPONENTS:-operator buffer inference trainer}"
read -ra options <<<"${BUILD_ARGS:-}"

builder=${BUILDER:-}
if [ -z "$builder" ]; then
    if docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
        builder=docker
    elif command -v podman >/dev/null; then
        builder=podman
    elif command -v buildah >/dev/null; then
        builder=buildah
    fi
fi
case $builder in
docker) build=(docker buildx build) ;;
podman | buildah) build=("$builder" build) ;;
"")
    echo "images: no builder found: docker with buildx and a running daemon, podman or buildah;" >&2
    echo "images: install one of them (Debian: apt-get install podman) and rerun" >&2
    exit 1
    ;;
*)
    echo "images: BUILDER is '$builder', which is none of docker, podman, buildah" >&2
    exit 1
    ;;
esac

echo "images: building with $builder"
for component in "${components[@]}"; do
    if [ "${1:-}" = --sbom ]; then
        folder=out/sbom/$component
        echo "images: $folder/sbom.cdx.json"
        target=(--target sbom --build-arg "COMPONENT=$component" --output "type=local,dest=$folder")
    else
        name="$prefix-$component:$tag"
        echo "images: $name"
        target=(--target "$component" --tag "$name")
        [ "$builder" != docker ] || target+=(--load)
    fi
    "${build[@]}" "${options[@]}" --file deploy/docker/Dockerfile "${target[@]}" .
done
