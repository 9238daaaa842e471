#!/usr/bin/env bash
# packaging/stage.sh private|system DIRECTORY: every file of a package below DIRECTORY, as it will be below /.
#   private: the libraries of packaging/lock/requirements.txt come along, in a virtual environment of /usr/bin/python3
#   system:  the distribution's own libraries are used; where it wants modules says $SITE_PACKAGES
# LAYOUT=fedora: as Fedora and its kin have it.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and says so

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
flavour=$1 layout=${LAYOUT:-debian}
mkdir -p "$2"
stage=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# This is a copy of the sources, in which something may be built. No archive of them is wanted here, so none is made.
wheel() {
    (cd "$root" && /usr/bin/python3 -m build --no-isolation --wheel --outdir "$work" . >&2)
    echo "$work"/*.whl
}

stage_private() {
    local home=$stage/usr/lib/ksmtuned-py pip=(/usr/share/python-wheels/pip-*.whl) # of Debian's python3-venv
    /usr/bin/python3 -m venv --system-site-packages --without-pip "$home"
    "$home/bin/python" "${pip[0]}/pip" --quiet --disable-pip-version-check install --no-compile --no-deps \
        --ignore-installed --only-binary :all: --require-hashes --requirement "$root/packaging/lock/requirements.txt"
    unpack_wheel "$home"/lib/python3*/site-packages
    # Where it was made does not matter where it is used: no such path stays.
    sed -i '/^command = /d' "$home/pyvenv.cfg"
    find "$home/bin" -mindepth 1 ! -name 'python*' -delete
    rm -rf "${home:?}"/include "${home:?}"/lib64 "${home:?}"/share
    find "$home" -name RECORD -exec sed -i '\#^\.\./#d' {} +
    install_command /usr/lib/ksmtuned-py/bin/python
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
    put 644 config/config.toml etc/ksmtuned-py/config.toml
    put 644 config/config.d/README etc/ksmtuned-py/config.d/README
    put 644 packaging/10-observe.toml etc/ksmtuned-py/config.d/10-observe.toml
    put 644 docs/man/ksmtuned-py.1 usr/share/man/man1/ksmtuned-py.1
    put 644 docs/man/ksmtuned-py.toml.5 usr/share/man/man5/ksmtuned-py.toml.5
    install -d --mode=755 "$stage/var/lib/ksmtuned-py" # the unit cannot make it
    local file
    for file in "$root"/systemd/*; do
        case ${file##*/} in
        ksmtuned-py.*) put 644 "systemd/${file##*/}" "usr/lib/systemd/system/${file##*/}" ;;
        *) put 644 "systemd/${file##*/}" "usr/share/doc/ksmtuned-py/examples/${file##*/}" ;; # an admin's to take
        esac
    done
    put 644 packaging/zram.md usr/share/doc/ksmtuned-py/zram.md
    for file in "$root"/docs/runbooks/*; do
        put 644 "docs/runbooks/${file##*/}" "usr/share/doc/ksmtuned-py/runbooks/${file##*/}"
    done
    for file in prometheus/{prometheus.yml,inventory.json,targets/hosts.yml,ksmtuned-py.{rules,tests}.yml} \
        grafana/{host,fleet}.json; do
        put 644 "packaging/$file" "usr/share/ksmtuned-py/$file"
    done
    [[ $layout == debian ]] || stage_fedora
}

stage_fedora() {
    put 644 LICENSE usr/share/licenses/ksmtuned-py/LICENSE # Debian has it once for all
    # A package of its own: who installs it wants the service without root's rights.
    put 644 systemd/unprivileged.conf usr/lib/systemd/system/ksmtuned-py.service.d/unprivileged.conf
    put 644 systemd/unprivileged.sysusers usr/lib/sysusers.d/ksmtuned-py.conf
    put 644 systemd/unprivileged.tmpfiles usr/lib/tmpfiles.d/ksmtuned-py.conf
}

# The command itself knows its words, whatever version it is. It takes 0.2 s, at the first TAB of a shell.
stage_completion() {
    local zsh=usr/share/zsh/vendor-completions
    [[ $layout == debian ]] || zsh=usr/share/zsh/site-functions
    put 644 packaging/completion/ksmtuned-py.bash usr/share/bash-completion/completions/ksmtuned-py
    put 644 packaging/completion/ksmtuned-py.zsh "$zsh/_ksmtuned-py"
}

"stage_$flavour"
stage_files
stage_completion
