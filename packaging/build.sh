#!/usr/bin/env bash
# Builds packages of this checkout. Two builds of one commit are equal byte by byte. Beside each is what it is made of.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere, and says so

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'END'
usage: packaging/build.sh deb [--flavour private|system] [--out DIR]
       packaging/build.sh rpm [--out DIR]       with the libraries of Fedora, for the Python of this machine; and
                                                one more, with which the service runs without root's rights
       packaging/build.sh wheel [--out DIR]     a wheel and a source distribution
       packaging/build.sh image [--base BASE] [--libvirt yes|no] [--out DIR]     an OCI archive, for nodes

deb: private brings its libraries along (Debian 12, Ubuntu 24.04), system takes the distribution's (Debian 13).
The default is what the distribution of this machine has. DIR is build/packages by default.
image: BASE is an image of Debian 12, or the root directory of one.
Ends with 2 when it is called wrong or something is missing here, and with 1 when a package cannot be built.
END
}

die() {
    printf 'build: %s\n' "$*" >&2
    exit 1
}

# refuse WHY: before anything was done.
refuse() {
    printf 'build: %s\n' "$*" >&2
    exit 2
}

# The time that all files of a package have: that of the commit.
epoch() {
    if [[ -n ${SOURCE_DATE_EPOCH:-} ]]; then
        printf '%s' "$SOURCE_DATE_EPOCH"
    else
        this_git log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/pyproject.toml"
    fi
}

# git, whoever has the checkout: root builds what a user has cloned.
this_git() { git -c safe.directory="$root" -C "$root" "$@"; }

need_commands() {
    local name
    for name; do
        command -v "$name" >/dev/null || refuse "no $name here; on Debian: apt-get install ${packages[*]}"
    done
}

# need_python MODULE...: of the distribution's Python, whatever python3 comes first on PATH.
need_python() {
    local name
    need_commands /usr/bin/python3
    for name; do
        /usr/bin/python3 -Ic "import $name" 2>/dev/null ||
            refuse "no $name for /usr/bin/python3 here; on Debian: apt-get install ${packages[*]}"
    done
}

# sources DIRECTORY: what git tracks, or the tree where there is no git, but for what was built in it.
sources() {
    local files=(--exclude=./.git --exclude=./.venv --exclude=./build --exclude=__pycache__ .)
    mkdir -p "$1"
    if this_git rev-parse --git-dir >/dev/null 2>&1; then
        this_git ls-files -z >"$work/files"
        files=(--null --files-from="$work/files")
    fi
    tar --directory="$root" --create --file=- "${files[@]}" | tar --directory="$1" --no-same-owner --extract --file=-
    chmod -R u=rwX,go=rX "$1" # whatever umask it was checked out with
}

build_wheel() {
    local packages=(python3-build python3-setuptools python3-wheel python3-venv)
    need_python build setuptools wheel
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

# list_libraries PACKAGE [SITE_PACKAGES [DEBIAN]]: beside it, what it is made of; and the licences of what it brings along.
list_libraries() {
    /usr/bin/python3 "$root/packaging/sbom.py" "${1%.*}" "${@:2}"
}

default_flavour() {
    local newest floor
    newest=$(apt-cache policy python3-pydantic 2>/dev/null | sed -n 's/^  Candidate: \([0-9].*\)/\1/p')
    floor=$(sed -n 's/^    "pydantic>=\(.*\)",$/\1/p' "$root/pyproject.toml")
    if dpkg --compare-versions "${newest:-0}" ge "$floor"; then echo system; else echo private; fi
}

# The libraries that pyproject.toml wants, as Debian calls them.
system_depends() {
    /usr/bin/python3 - "$root/pyproject.toml" <<'END'
import re, sys, tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
python = project["requires-python"].replace(">=", "python3 (>= ") + ")"
print(python, *(re.sub(r"([\w-]+)>=(.+)", r"python3-\1 (>= \2)", wanted) for wanted in project["dependencies"]), sep=", ")
END
}

build_deb() {
    local packages=(build-essential debhelper dpkg-dev python3-build python3-setuptools python3-wheel python3-venv)
    need_commands dpkg-buildpackage dh gcc
    need_python build setuptools wheel
    [[ ${flavour:=$(default_flavour)} == system ]] || need_python venv ensurepip
    local tree=$work/ksmtuned-py architecture=all depends
    depends=$(system_depends)
    sources "$tree"
    cp -r "$tree/packaging/debian" "$tree/debian"
    if [[ $flavour == private ]]; then
        architecture=any depends="python3 (>= $(this_python)), python3 (<< $(next_python)), libc6"
    fi
    sed -e "s/@ARCHITECTURE@/$architecture/" -e "s/@DEPENDS@/$depends/" "$tree/debian/control.in" >"$tree/debian/control"
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
    local packages=(rpm python3-build python3-setuptools python3-wheel) tree=$work/ksmtuned-py version
    need_commands rpmbuild
    need_python build setuptools wheel
    sources "$tree"
    version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$tree/ksmtuned_py/__init__.py")
    rpmbuild -bb --nodeps --quiet --define "_topdir $work/rpm" --define "source_tree $tree" \
        --define "package_version $version" --define "python_version $(this_python)" \
        --define "python3_sitelib /usr/lib/python$(this_python)/site-packages" --define "_buildhost localhost" \
        --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
        "$tree/packaging/rpm/ksmtuned-py.spec" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "the packages could not be built"
    }
    list_libraries "$work/rpm/RPMS/noarch/ksmtuned-py-$version"-*.rpm
    local unprivileged=("$work"/rpm/RPMS/noarch/ksmtuned-py-unprivileged-*.rpm)
    /usr/bin/python3 "$root/packaging/sbom.py" --addition ksmtuned-py-unprivileged "${unprivileged[0]%.*}"
    mv "$work"/rpm/RPMS/noarch/* "$out"
}

build_image() {
    local packages=(buildah python3-build python3-setuptools python3-wheel python3-venv) name extra=python3-libvirt
    need_commands buildah
    ((EUID == 0)) || refuse "only root can build the image"
    [[ $libvirt == yes ]] || extra=
    name=$work/ksmtuned-py-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/ksmtuned_py/__init__.py")-$(uname -m).oci
    "$root/packaging/image/build.sh" "$work/context" "$name.tar" "$base" "$extra" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        die "the image could not be built"
    }
    list_libraries "$name.tar" "$work/context/libraries" "$work/context/debian"
    mv "$name".* "$out"
}

this_python() { /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
next_python() { /usr/bin/python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))'; }

kind=${1:-}
[[ $# -eq 0 ]] || shift
out=$root/build/packages flavour='' base='' libvirt=yes
wrong() {
    usage >&2
    refuse "$@"
}
case $kind in
deb | rpm | wheel | image) ;;
-h | --help)
    usage
    exit
    ;;
*) wrong "wanted deb, rpm, wheel or image, not '$kind'" ;;
esac
while (($#)); do
    [[ -n ${2:-} ]] || wrong "$1 wants a value"
    case $kind$1 in
    "$kind--out") out=$2 ;;
    deb--flavour)
        flavour=$2
        [[ $flavour == private || $flavour == system ]] || wrong "no flavour $flavour: private or system"
        ;;
    image--base) base=$2 ;;
    image--libvirt)
        libvirt=$2
        [[ $libvirt == yes || $libvirt == no ]] || wrong "no libvirt $libvirt: yes or no"
        ;;
    *) wrong "$kind takes no $1" ;;
    esac
    shift 2
done
[[ $out == /* ]] || out=$PWD/$out
mkdir -p "$out" 2>/dev/null || refuse "no directory can be made at $out"
out=$(cd "$out" && pwd)
probe=$(mktemp --tmpdir="$out" 2>/dev/null) || refuse "nothing can be written to $out"
rm "$probe"
work=$(mktemp -d) || refuse "no directory can be made in ${TMPDIR:-/tmp}"
trap 'rm -rf "$work"' EXIT
# The recipe for rpm would take other signs for its own.
[[ $work =~ ^/[A-Za-z0-9/._-]+$ ]] || refuse "nothing is built in $work: set TMPDIR to a path of letters, digits and /._-"
SOURCE_DATE_EPOCH=$(epoch)
[[ $SOURCE_DATE_EPOCH =~ ^[0-9]{1,12}$ ]] || refuse "SOURCE_DATE_EPOCH is no time: $SOURCE_DATE_EPOCH"
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C.UTF-8
umask 022
"build_$kind"
ls "$out"
