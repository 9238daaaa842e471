"""An emulated aarch64 machine of two nodes: Debian's cloud kernel and Python, this package, and a program of ours."""

import compileall
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.support.debian import CACHE, kernel_package, unpack

ROOT = Path(__file__).parent.parent.parent
QEMU = "qemu-system-aarch64"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "busybox-static")
LIBRARIES = ("numpy", "psutil", "pydantic", "xxhash")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
NOT_NEEDED = ("usr/share", "usr/lib/aarch64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/perl-base", "var")
INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /without-ksm/sys
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ln -s /proc /without-ksm/proc
cd /app
PYTHONPATH=/app:/site /usr/bin/{PYTHON} -m PROGRAM < /dev/null
poweroff -f
"""


def run(program: str, directory: Path, seconds: float) -> str:
    """All that the machine's console showed until the program had ended; raises subprocess.SubprocessError.

    The file `console` in the directory has it, too, also on the way.
    """
    kernel, system = _system()
    initrd = directory / "initrd"
    initrd.write_bytes(system.read_bytes() + _packed(_application(program, directory / "application")))
    # One emulated instruction takes one nanosecond, and waiting none: deadlines in there do not depend on this host.
    clock = ["-icount", "shift=0,sleep=off"]
    machine = ["-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg", *clock, "-smp", "2", "-m", "1G"]
    for node in range(2):
        machine += ["-object", f"memory-backend-ram,id=memory-{node},size=512M,merge=off"]
        machine += ["-numa", f"node,nodeid={node},cpus={node},memdev=memory-{node}"]
    console = ["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    boot = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyAMA0 quiet panic=-1"]
    shown = directory / "console"
    with shown.open("wb") as console_file:
        subprocess.run(
            [QEMU, *machine, *console, *boot],
            stdin=subprocess.DEVNULL,
            stdout=console_file,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=True,
        )
    return shown.read_text(errors="replace")


def _system() -> tuple[Path, Path]:
    """The kernel, and an initrd with Python and the libraries; downloaded the first time."""
    wanted = CACHE / f"arm64-{PYTHON}-{'-'.join(version(name) for name in LIBRARIES)}"
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
            _download(Path(scratch))
            shutil.rmtree(wanted, ignore_errors=True)
            Path(scratch, "made").rename(wanted)  # whole or not at all, also for a second test run at the same time
    return wanted / "kernel", wanted / "initrd"


def _download(scratch: Path) -> None:
    options = _apt_options(scratch)
    subprocess.run(["apt-get", "-q", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    unpack(kernel_package(*options, processor="arm64"), scratch / "kernel", *options)
    install = ["install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES]
    subprocess.run(["apt-get", "-q", *options, *install], check=True, stdout=subprocess.DEVNULL)
    tree = scratch / "tree"
    for package in scratch.glob("archives/*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    for name in NOT_NEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
    _install_libraries(tree / "site")
    for directory in (tree / "site", tree / "usr/lib" / PYTHON):
        _compile(directory)
    (scratch / "made").mkdir()
    (scratch / "made/initrd").write_bytes(_packed(tree))
    next(scratch.glob("kernel/boot/vmlinuz-*")).rename(scratch / "made/kernel")


def _apt_options(scratch: Path) -> list[str]:
    """Options that make apt work on packages of that processor, from this machine's sources, and nothing else."""
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "archives/partial").mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _install_libraries(site: Path) -> None:
    """The versions that are installed here."""
    wanted = [f"{name}=={version(name)}" for name in LIBRARIES]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-compile"]
    subprocess.run([*pip, "--target", site, *platforms, "--only-binary=:all:", *wanted], check=True)
    for tests in [*site.rglob("tests")]:
        shutil.rmtree(tests, ignore_errors=True)


def _application(program: str, tree: Path) -> Path:
    """This package, the tests, and what starts the program."""
    shutil.copytree(ROOT / "ksmtuned_py", tree / "app/ksmtuned_py", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "tests/scan", "tests/support"):
        (tree / "app" / name).mkdir()
        for file in (ROOT / name).glob("*.py"):
            shutil.copy(file, tree / "app" / name)
    _compile(tree)
    init = tree / "init"
    init.write_text(INIT.replace("PROGRAM", program))
    init.chmod(0o755)
    return tree


def _compile(directory: Path) -> None:
    """Beforehand, because it is slow in an emulation; what is never imported need not be valid."""
    compileall.compile_dir(directory, quiet=2)


def _packed(tree: Path) -> bytes:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    command = ["cpio", "--create", "--format=newc", "--quiet"]
    return subprocess.run(command, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout


def available() -> str:
    """What is missing; ''. Downloads what it can."""
    for program in (QEMU, "cpio", "apt-get"):
        if not shutil.which(program):
            return program
    try:
        _system()
    except (OSError, subprocess.CalledProcessError, StopIteration):
        return "Debian's packages for arm64"
    return ""
