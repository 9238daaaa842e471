#!/usr/bin/env bash
# Sets up ksmtuned-py from this checkout on Debian 12 or newer, and starts it.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and says so

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=/usr/bin/python3 # Debian's own: another python3 may come first on PATH

# libvirt-python and systemd-python come as source only.
build_packages=(ca-certificates gcc libc6-dev libsystemd-dev libvirt-dev pkg-config python3-dev python3-venv)
# Without libvirt-daemon-system: the tests start a libvirtd of their own, and the machine shall not get a service.
test_packages=(buildah build-essential busybox-static chromium cpio curl debhelper fonts-inter git groff-base
    libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu lintian mmdebstrap procps python3-build python3-setuptools python3-wheel
    qemu-system-arm qemu-system-x86 rpm rpmlint runc shellcheck strace systemd systemd-container zsh)
run_extras=libvirt,systemd,scan
test_extras=$run_extras,bench,test
apt_options=()
site_lock=$root/packaging/lock/site.txt # what the documentation's site takes; only the tests build it

usage() {
    cat <<'END'
usage: packaging/bootstrap.sh run [ARGS]    set up what is missing, then: ksmtuned-py run ARGS
       packaging/bootstrap.sh test [ARGS]   set up what is missing, then: pytest ARGS
       packaging/bootstrap.sh setup         set up what is missing, for both
END
}

say() { printf 'bootstrap: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# quietly COMMAND...: shows what the command printed only when it fails.
quietly() {
    local output
    output=$("$@" 2>&1) || {
        tail -n 20 <<<"$output" >&2
        die "'$1 ${*: -1}' failed (its last lines are above); is there a network?"
    }
}

missing_packages() {
    local name
    for name; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s ' "$name"
    done
}

install_packages() {
    [[ $(command -v apt-get) ]] || die "no apt-get here: this script is for Debian 12 or newer; README.md says what to install"
    local missing
    read -ra missing <<<"$(missing_packages "$@")"
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "only root can install: ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    [[ ${updated-} ]] || quietly apt-get -q update
    updated=1
    quietly apt-get -q install -y --no-install-recommends "${apt_options[@]}" "${missing[@]}"
}

# make_venv STAMP EXTRAS [LOCK]: quick when STAMP says that it was done here, for these requirements and this script.
make_venv() {
    local stamp=$venv/$1 extras=$2 lock=${3:-} wanted
    wanted="$root $(cat "$root/pyproject.toml" "$root/packaging/bootstrap.sh" "$site_lock" | sha256sum)"
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11: Debian 12 or newer is needed"
    say "installing ksmtuned-py[$extras] into $venv"
    quietly "$python" -m venv "$venv"
    # compat: Python finds this checkout by a line of text. The usual hook takes half of the start of each program.
    quietly "$venv/bin/pip" install --disable-pip-version-check --config-settings editable_mode=compat --editable "${root}[$extras]"
    [[ -z $lock ]] || quietly "$venv/bin/pip" install --disable-pip-version-check --require-hashes --requirement "$lock"
    printf '%s' "$wanted" >"$stamp"
}

# compiled FOLDER...: the service may not write here, and some environments keep Python from it.
# Each start of a program would then compile all anew, for a fifth of a second.
compiled() {
    "$venv/bin/python" -m compileall -q -j 0 "${@/#/$root/}" || say "some files could not be compiled"
}

set_up_for_run() {
    install_packages "${build_packages[@]}"
    make_venv stamp-run "$run_extras"
    compiled ksmtuned_py
}

refuse_hidden() {
    ((EUID)) || setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$root" ||
        die "some tests run as nobody, who may not enter $root: a checkout in /srv can be tested, one in /root cannot"
}

# rewritten: pytest makes more of each assert. Where it may not keep that, each worker does it anew, for seconds.
rewritten() {
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m pytest --rootdir "$root" --collect-only -q "$root/tests" >/dev/null 2>&1 ||
        say "the tests could not be collected"
}

set_up_for_test() {
    # The manual's index and the libraries' are made once, with the other packages, for that takes a quarter of a minute.
    apt_options=(-o Dpkg::Options::=--no-triggers)
    install_packages "${build_packages[@]}"
    apt_options=()
    ( # this and the packages mostly wait for the network
        make_venv stamp-test "$test_extras" "$site_lock"
        [[ -d $root/tests/__pycache__ ]] || rewritten
    ) &
    install_packages "${test_packages[@]}"
    [[ -z ${updated-} ]] || quietly dpkg --triggers-only --pending
    # The user that libvirt-daemon-system would make: libvirtd does not start without.
    ((EUID)) || getent passwd libvirt-qemu >/dev/null || useradd --system --user-group libvirt-qemu
    wait "$!" # its failure ends all
    cp "$venv/stamp-test" "$venv/stamp-run" # its extras are among these
    compiled ksmtuned_py tests bench
}

verb=${1:-}
[[ $# -eq 0 ]] || shift
case $verb in
run)
    set_up_for_run
    exec "$venv/bin/ksmtuned-py" run "$@"
    ;;
test)
    refuse_hidden
    set_up_for_test
    cd "$root"
    # promtool without the service that its package would start.
    PATH=$PATH:$("$venv/bin/python" -m tests.support.debian prometheus)/usr/bin
    exec "$venv/bin/python" -m pytest "$@"
    ;;
setup) set_up_for_test ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
