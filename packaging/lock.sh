#!/usr/bin/env bash
# Renews packaging/lock/: the libraries that a package brings along, and what the documentation's site and Ansible's role take
# in the tests, each with its version and hashes. Also the page's one library, from npm, which is kept here as it comes.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and says so

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install pip-tools
cd "$root"

# lock WHAT FROM: packaging/lock/WHAT.txt, for the requirements of FROM.
lock() {
    CUSTOM_COMPILE_COMMAND=packaging/lock.sh "$work/venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --upgrade \
        --no-emit-options --allow-unsafe --output-file "packaging/lock/$1.txt" "$2"
}

# Without libvirt and systemd: a package takes the distribution's own.
lock requirements pyproject.toml
"$work/venv/bin/pip" --quiet --disable-pip-version-check install --no-deps --require-hashes --target "$work/libraries" \
    --requirement packaging/lock/requirements.txt
/usr/bin/python3 packaging/sbom.py --licences "$work/libraries" >packaging/lock/licences.json
# As it comes: small already, and with its licence beside it.
(cd "$work" && npm --silent pack uplot >/dev/null && tar --extract --file=uplot-*.tgz)
for each in dist/uPlot.iife.min.js:uplot.min.js dist/uPlot.min.css:uplot.min.css LICENSE:uplot.LICENSE.txt; do
    cp "$work/package/${each%:*}" "ksmtuned_py/publish/page/${each#*:}"
done
lock site packaging/site/requirements.in
# What the tests of the role for Ansible take.
lock ansible packaging/ansible/requirements.in
