#!/usr/bin/env bash
# packaging/stage.sh private|system DIRECTORY: every file of a package below DIRECTORY, as it will be below /.
#   private: the libraries of packaging/lock/requirements.txt come along, in a virtual environment of /usr/bin/python3
#   system:  the distribution's own libraries are used; where it wants modules says $SITE_PACKAGES
# LAYOUT=fedora: as Fedora and its kin have it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
flavour=$1
mkdir -p "$2"
stage=$(cd "$2" && pwd)
python=/usr/bin/python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wheel() {
    "$root/packaging/build.sh" wheel --out "$work" >&2
    echo "$work"/*.whl
}

stage_private() {
    local home=$stage/usr/lib/ksmtuned-py
    /usr/bin/python3 -m venv "$work/pip"
    /usr/bin/python3 -m venv --system-site-packages --without-pip "$home"
    "$work/pip/bin/pip" --quiet --disable-pip-version-check --python "$home/bin/python" install --no-compile --no-deps \
        --ignore-installed --only-binary :all: --require-hashes --requirement "$root/packaging/lock/requirements.txt"
    unpack_wheel "$home"/lib/python3*/site-packages
    # Where it was made does not matter where it is used: no such path stays.
    sed -i '/^command = /d' "$home/pyvenv.cfg"
    find "$home/bin" -mindepth 1 ! -name 'python*' -delete
    rm -rf "${home:?}"/include "${home:?}"/lib64 "${home:?}"/share
    find "$home" -name RECORD -exec sed -i '\#^\.\./#d' {} +
    install_command /usr/lib/ksmtuned-py/bin/python
    python=$home/bin/python
}

stage_system() {
    local place=$stage${SITE_PACKAGES:-/usr/lib/python3/dist-packages}
    mkdir -p "$place"
    unpack_wheel "$place"
    install_command /usr/bin/python3
}

unpack_wheel() {
    /usr/bin/python3 -m zipfile -e "$(wheel)" "$1"
    find "$1" -name __pycache__ -prune -exec rm -rf {} +
    find "$1" -path '*/ksmtuned_py*' -exec chmod u=rwX,go=rX {} +
}

# install_command PYTHON: isolated, so that no directory or variable of whoever calls it can add a module.
install_command() {
    mkdir -p "$stage/usr/bin"
    printf '#!%s -I\nimport sys\n\nfrom ksmtuned_py.__main__ import main\n\nsys.exit(main())\n' "$1" >"$stage/usr/bin/ksmtuned-py"
    chmod 755 "$stage/usr/bin/ksmtuned-py"
}

# put MODE FILE PLACE
put() { install -D --mode="$1" "$root/$2" "$stage/$3"; }

stage_files() {
    put 644 systemd/ksmtuned-py.service usr/lib/systemd/system/ksmtuned-py.service
    put 644 systemd/ksmtuned-py.socket usr/lib/systemd/system/ksmtuned-py.socket
    put 644 config/config.toml etc/ksmtuned-py/config.toml
    put 644 config/config.d/README etc/ksmtuned-py/config.d/README
    put 644 packaging/10-observe.toml etc/ksmtuned-py/config.d/10-observe.toml
    put 644 docs/man/ksmtuned-py.1 usr/share/man/man1/ksmtuned-py.1
    put 644 docs/man/ksmtuned-py.toml.5 usr/share/man/man5/ksmtuned-py.toml.5
    local example
    for example in "$root"/systemd/*.{conf,sysusers,tmpfiles}; do
        put 644 "systemd/${example##*/}" "usr/share/doc/ksmtuned-py/examples/${example##*/}"
    done
    put 644 packaging/zram.md usr/share/doc/ksmtuned-py/zram.md
}

stage_completion() {
    local bash=$stage/usr/share/bash-completion/completions zsh=$stage/usr/share/zsh/vendor-completions
    [[ ${LAYOUT:-debian} == debian ]] || zsh=$stage/usr/share/zsh/site-functions
    mkdir -p "$bash" "$zsh"
    complete_with bash >"$bash/ksmtuned-py"
    complete_with zsh >"$zsh/_ksmtuned-py"
}

# Completion comes from the parser, with the libraries that the package uses.
complete_with() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root "$python" -m ksmtuned_py completion "$1"
}

"stage_$flavour"
stage_files
stage_completion
