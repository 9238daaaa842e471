#!/usr/bin/env bash
# Renews packaging/lock/requirements.txt: the libraries that a package brings along, each with its version and hashes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install pip-tools
cd "$root"
# Without libvirt and systemd: a package takes the distribution's own.
CUSTOM_COMPILE_COMMAND=packaging/lock.sh "$work/venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --upgrade \
    --no-emit-options --allow-unsafe --output-file packaging/lock/requirements.txt pyproject.toml
