"""Builds what an emulated machine finds at its start: Debian's Python and libraries, this package, tests, programs."""

import compileall
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.support.debian import apt_options, cached

ROOT = Path(__file__).parent.parent.parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "busybox-static")
LIBRARIES = ("numpy", "prometheus-client", "psutil", "pydantic", "rich", "shtab", "waitress", "xxhash")
WHEELS = {"amd64": "x86_64", "arm64": "aarch64"}
PLATFORMS = ("manylinux2014", "manylinux_2_27", "manylinux_2_28")
NOT_NEEDED = ("usr/share", "usr/lib/*/gconv", "usr/lib/*/perl-base", "var")
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /without-ksm/sys
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -F /dev/CONSOLE -onlcr
ln -s /proc /without-ksm/proc
cd /app
export PYTHONPATH=/app:/site
INTERPRETER -m tests.support.programs PROGRAMS < /dev/null 2>&1
poweroff -f
"""


def system(processor: str) -> Path:
    """Returns an initrd with Python and the libraries; downloads it the first time."""
    versions = "-".join(version(name) for name in LIBRARIES)
    return cached(f"{processor}-{PYTHON}-{versions}", lambda made: _make_system(processor, made)) / "initrd"


def _make_system(processor: str, made: Path) -> None:
    made.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        options = apt_options(Path(scratch), processor)
        install = ["install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES]
        subprocess.run(["apt-get", "-q", *options, *install], check=True, stdout=subprocess.DEVNULL)
        tree = Path(scratch, "tree")
        for package in Path(scratch).glob("archives/*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
        for name in NOT_NEEDED:
            for path in tree.glob(name):
                shutil.rmtree(path)
        _install_libraries(tree / "site", WHEELS[processor])
        for directory in (tree / "site", tree / "usr/lib" / PYTHON):
            _compile(directory)
        (made / "initrd").write_bytes(packed(tree))


def _install_libraries(site: Path, processor: str) -> None:
    """Installs the versions of the libraries that are installed here."""
    wanted = [f"{name}=={version(name)}" for name in LIBRARIES]
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{processor}")]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-compile"]
    subprocess.run([*pip, "--target", site, *platforms, "--only-binary=:all:", *wanted], check=True)
    for tests in [*site.rglob("tests")]:
        shutil.rmtree(tests, ignore_errors=True)


def application(tree: Path, programs: Mapping[str, tuple[str, str]], console: str) -> Path:
    """Packs this package, the tests, and what starts each program between its two marks on the console."""
    for name in ("ksmtuned_py", "tests"):
        shutil.copytree(ROOT / name, tree / "app" / name, ignore=shutil.ignore_patterns("data", "*.pyc.*"))
    _compile(tree)
    init = tree / "init"
    words = shlex.join(word for program, marks in programs.items() for word in (program, *marks))
    lines = INIT.replace("CONSOLE", console).replace("INTERPRETER", f"/usr/bin/{PYTHON}").replace("PROGRAMS", words)
    init.write_text(lines)
    init.chmod(0o755)
    return tree


def _compile(directory: Path) -> None:
    """Compiles beforehand what is not yet, because it is slow in an emulation; not all of it need be valid."""
    compileall.compile_dir(directory, quiet=2)


def packed(tree: Path) -> bytes:
    """Returns the tree as an initrd; one may follow another. It is uncompressed, so that it boots sooner."""
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    command = ["cpio", "--create", "--format=newc", "--quiet"]
    return subprocess.run(command, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
