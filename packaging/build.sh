#!/usr/bin/env bash
# Builds packages of this checkout. Two builds of one commit are equal byte by byte. Beside each is what it is made of.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'END'
usage: packaging/build.sh deb [--flavour private|system] [--out DIR]
       packaging/build.sh rpm [--out DIR]       with the libraries of Fedora, for the Python of this machine
       packaging/build.sh wheel [--out DIR]     a wheel and a source distribution

deb: private brings its libraries along (Debian 12, Ubuntu 24.04), system takes the distribution's (Debian 13).
The default is what the distribution of this machine has. DIR is build/packages by default.
END
}

die() {
    printf 'build: %s\n' "$*" >&2
    exit 1
}

# The time that all files of a package have: that of the commit.
epoch() {
    if [[ -n ${SOURCE_DATE_EPOCH:-} ]]; then
        printf '%s' "$SOURCE_DATE_EPOCH"
    else
        git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/pyproject.toml"
    fi
}

need_commands() {
    local name
    for name; do
        command -v "$name" >/dev/null || die "no $name here: apt-get install ${packages[*]}"
    done
}

# sources DIRECTORY: what git tracks, or the tree as it is where there is no git.
sources() {
    mkdir -p "$1"
    if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
        git -C "$root" ls-files -z | tar --directory="$root" --null --files-from=- --create --file=- | tar --directory="$1" --extract --file=-
    else
        cp -a "$root/." "$1"
    fi
    chmod -R u=rwX,go=rX "$1" # whatever umask it was checked out with
}

build_wheel() {
    local packages=(python3-build python3-setuptools python3-wheel python3-venv)
    /usr/bin/python3 -c 'import build, setuptools, wheel' 2>/dev/null || die "apt-get install ${packages[*]}"
    sources "$work/wheel"
    (cd "$work/wheel" && /usr/bin/python3 -m build --no-isolation --outdir "$work/dist" . >"$work/log" 2>&1) || {
        tail -n 20 "$work/log" >&2
        die "the wheel could not be built"
    }
    same_each_time "$work"/dist/*.tar.gz
    list_libraries "$work"/dist/*.whl
    mv "$work"/dist/* "$out"
}

# A source archive has the times of the files, and gzip its own: all are the commit's.
same_each_time() {
    local tree=$work/sdist
    mkdir "$tree"
    tar --directory="$tree" --extract --file="$1"
    (cd "$tree" && tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar \
        --create -- *) | gzip --no-name --best >"$1"
}

# list_libraries PACKAGE [SITE_PACKAGES]: beside it, what it is made of; and the licences of what it brings along.
list_libraries() {
    /usr/bin/python3 "$root/packaging/sbom.py" "${1%.*}" "${@:2}"
}

default_flavour() {
    local newest
    newest=$(apt-cache policy python3-pydantic 2>/dev/null | sed -n 's/^  Candidate: //p')
    if dpkg --compare-versions "${newest:-0}" ge 2.5; then echo system; else echo private; fi
}

SYSTEM_DEPENDS='python3 (>= 3.11), python3-pydantic (>= 2.5), python3-psutil (>= 5.9), python3-prometheus-client (>= 0.20),
 python3-rich (>= 13), python3-shtab, python3-waitress (>= 2.1)'

build_deb() {
    local packages=(build-essential debhelper dpkg-dev python3-build python3-setuptools python3-wheel python3-venv)
    need_commands dpkg-buildpackage dh
    [[ ${flavour:=$(default_flavour)} == private || $flavour == system ]] || die "no flavour $flavour: private or system"
    local tree=$work/ksmtuned-py architecture=all depends=$SYSTEM_DEPENDS
    sources "$tree"
    cp -r "$tree/packaging/debian" "$tree/debian"
    if [[ $flavour == private ]]; then
        architecture=any depends="python3 (>= $(this_python)), python3 (<< $(next_python)), libc6"
    fi
    sed -e "s/@ARCHITECTURE@/$architecture/" -e "s/@DEPENDS@/${depends//$'\n'/}/" "$tree/debian/control.in" >"$tree/debian/control"
    rm "$tree/debian/control.in"
    (cd "$tree" && FLAVOUR=$flavour dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary >"$work/log" 2>&1) || {
        tail -n 20 "$work/log" >&2
        die "the package could not be built"
    }
    local site_packages=("$tree"/debian/ksmtuned-py/usr/lib/ksmtuned-py/lib/python3*/site-packages)
    [[ -d ${site_packages[0]} ]] || site_packages=()
    list_libraries "$work"/*.deb "${site_packages[@]}"
    mv "$work"/*.deb "$work"/ksmtuned-py_*.json "$out"
    [[ $flavour == system ]] || mv "$work"/ksmtuned-py_*.licences.txt "$out"
}

build_rpm() {
    local packages=(rpm python3-build python3-setuptools python3-wheel python3-shtab) tree=$work/ksmtuned-py version
    need_commands rpmbuild
    sources "$tree"
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$tree/pyproject.toml")
    rpmbuild -bb --nodeps --quiet --define "_topdir $work/rpm" --define "source_tree $tree" \
        --define "package_version $version" --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
        "$tree/packaging/rpm/ksmtuned-py.spec" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "the package could not be built"
    }
    list_libraries "$work"/rpm/RPMS/noarch/*.rpm
    mv "$work"/rpm/RPMS/noarch/* "$out"
}

this_python() { /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
next_python() { /usr/bin/python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))'; }

kind=${1:-}
[[ $# -eq 0 ]] || shift
out=$root/build/packages flavour=
while (($#)); do
    case $1 in
    --out) out=${2:?--out wants a directory} ;;
    --flavour) flavour=${2:?--flavour wants private or system} ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift 2
done
case $kind in
deb | rpm | wheel) ;;
-h | --help)
    usage
    exit
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(epoch)
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
umask 022
"build_$kind"
ls "$out"
