#!/usr/bin/env bash
# packaging/image/build.sh CONTEXT FILE BASE PACKAGES: builds the image as the archive FILE, of what it puts into CONTEXT.
#   BASE: the name of an image, or the root directory of a bare Debian 12; '' for what the Containerfile says
#   PACKAGES: what else of Debian's it gets
# CONTEXT has the libraries in libraries/, and the list of Debian's packages in debian, afterwards.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and says so

context=$1 file=$2 base=$3 packages=$4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/ksmtuned_py/__init__.py")
# buildah needs no daemon, and no runtime with this isolation. Its store is gone afterwards.
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT

with_store() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }

# The libraries are fetched here, and checked against their hashes. The build itself fetches Debian's packages alone.
collect() {
    local lock=$root/packaging/lock/requirements.txt wheel
    mkdir -p "$context/wheels" "$context/libraries" "$context/etc/config.d"
    "$root/packaging/build.sh" wheel --out "$store/wheel"
    cp "$store"/wheel/*.whl "$context/wheels"
    /usr/bin/python3 -m venv "$store/pip"
    "$store/pip/bin/pip" --disable-pip-version-check download --dest "$context/wheels" --python-version 3.11 \
        --only-binary :all: --no-deps --require-hashes --requirement "$lock"
    for wheel in "$context"/wheels/*.whl; do /usr/bin/python3 -m zipfile -e "$wheel" "$context/libraries"; done
    cp "$lock" "$context"
    cp "$root/config/config.toml" "$context/etc"
    cp "$root/packaging/10-observe.toml" "$context/etc/config.d"
}

# as_image DIRECTORY: makes an image of a root directory, in the store.
as_image() {
    local container
    container=$(with_store from scratch)
    tar --directory="$1" --numeric-owner --create --file="$store/base.tar" .
    with_store add --quiet "$container" "$store/base.tar" /
    rm "$store/base.tar"
    with_store commit --quiet --rm --timestamp "$SOURCE_DATE_EPOCH" "$container" localhost/base:12
}

collect
arguments=(--build-arg "PACKAGES=$packages" --build-arg "VERSION=$version")
if [[ -d $base ]]; then
    as_image "$base"
    base=localhost/base:12
fi
[[ -z $base ]] || arguments+=(--build-arg "BASE=$base")
# Every file has the time of the commit.
with_store build --isolation chroot --format oci --timestamp "$SOURCE_DATE_EPOCH" --tag "localhost/ksmtuned-py:$version" \
    --file "$root/packaging/image/Containerfile" "${arguments[@]}" "$context"
# What else is in it, for whoever lists that.
container=$(with_store from "localhost/ksmtuned-py:$version")
# shellcheck disable=SC2016 # the fields are dpkg-query's
with_store run --isolation chroot "$container" dpkg-query --show --showformat '${Package}=${Version}\n' >"$context/debian"
with_store push --quiet "localhost/ksmtuned-py:$version" "oci:$store/oci:ksmtuned-py:$version"
tar --directory="$store/oci" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar \
    --create --file="$file" blobs index.json oci-layout
