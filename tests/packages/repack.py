"""Makes other packages of a package: another version of it, or one of another name that stands in its way."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

OTHER = """\
Package: {name}
Version: 1.5-1
Architecture: all
Maintainer: tests
Description: another manager of KSM
"""
OTHERS_UNIT = """\
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
OTHERS_POSTINST = """\
#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable --now ksmtuned.service
"""
OTHERS_PRERM = """\
#!/bin/sh
set -e
systemctl disable --now ksmtuned.service
"""


def repacked(package: Path, version: str, change: Callable[[Path], object] = lambda tree: None) -> Path:
    """The same package as another version, beside it, whose files may be changed; `change` is given their directory."""
    directory = package.parent
    tree, new = directory / f"tree-{version}", directory / f"ksmtuned-py_{version}.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    change(tree)
    return _packed(tree, new)


def other_manager(directory: Path, name: str, conf: str, preinst: str = "") -> Path:
    """A package of this name with the configuration and the unit of ksmtuned, as Proxmox' ksm-control-daemon is one."""
    tree = directory / (f"{name}-refuses" if preinst else name)
    files = {
        "DEBIAN/control": OTHER.format(name=name),
        "DEBIAN/conffiles": "/etc/ksmtuned.conf\n",
        "DEBIAN/postinst": OTHERS_POSTINST,
        "DEBIAN/prerm": OTHERS_PRERM,
        "etc/ksmtuned.conf": conf,
        "lib/systemd/system/ksmtuned.service": OTHERS_UNIT,
    } | ({"DEBIAN/preinst": preinst} if preinst else {})
    for place, text in files.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(text)
        (tree / place).chmod(0o755 if text.startswith("#!") else 0o644)
    return _packed(tree, directory / f"{tree.name}.deb")


def _packed(tree: Path, package: Path) -> Path:
    command: list[str | Path] = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, package]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return package
