#!/usr/bin/env python3
"""Writes what is made from the code: the sample configuration, the manual pages, the dashboards, and a version.

    .venv/bin/python packaging/generate.py [DIRECTORY]

DIRECTORY is a source tree (default: the one this file is in). The tests compare what is there with what comes out.
"""

import os
import re
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]  # it ships no types
from grafana.dashboards import fleet_json, host_json  # beside this file
from openapi import openapi

from ksmtuned_py import __version__
from ksmtuned_py.cli.main import PROG, SUMMARY, build_parser
from ksmtuned_py.config import Config
from ksmtuned_py.configfile.text import SAMPLE_HEAD, dotted, keys, render_sample, sections, toml_value
from ksmtuned_py.configfile.wanted import wanted

MANUAL = "KSM on KVM hosts"


def command_page() -> str:
    """ksmtuned-py(1), from the command line's parser."""
    # argparse breaks usage lines at the terminal's width, each Python version in its own way; here groff does it.
    os.environ["COLUMNS"] = "10000"
    parser = build_parser()
    parser.man_short_description = SUMMARY  # type: ignore[attr-defined]  # how Manpage is told
    page = Manpage(parser, format="single-commands-section")
    page.date = ""  # the same page on every day
    page.manual = MANUAL
    return f"{page}.SH FILES\n/etc/ksmtuned\\-py/config.toml, see\n.BR ksmtuned\\-py.toml (5)\n"


def config_page() -> str:
    """ksmtuned-py.toml(5), from the configuration's schema."""
    introduction = SAMPLE_HEAD.partition("\n\n")[2]
    lines = [
        f'.TH KSMTUNED\\-PY.TOML "5" "" "{PROG}" "{MANUAL}"',
        ".SH NAME",
        "ksmtuned\\-py.toml \\- the configuration of ksmtuned\\-py",
        ".SH DESCRIPTION",
        _roff(introduction),
    ]
    for path, section in sections(Config()):
        if path:
            lines += [f".SH [{_roff(dotted(path))}]", _roff(type(section).__doc__ or "")]
        for name, description, value in keys(section):
            lines += [".TP", f"\\fB{_roff(name)}\\fR = {_roff(toml_value(value))}"]
            lines += [_roff(description), ".br", f"Takes {_roff(wanted((*path, name)))}."]
    return "\n".join([*lines, ".SH SEE ALSO", f".BR {_roff(PROG)} (1)", ""])


def _roff(text: str) -> str:
    """Text that groff leaves as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def debian_changelog() -> str:
    """The changelog of Debian's package. The version of its newest entry is the program's."""
    return _of_this_version("debian/changelog", r"^(ksmtuned-py \()[^)]*")


def rpm_spec() -> str:
    """The description of Fedora's package. The version of the newest entry in its changelog is the program's."""
    return _of_this_version("rpm/ksmtuned-py.spec", r"(?<=%changelog\n)(\* .* - )[^-\n]*")


def kustomization() -> str:
    """What the DaemonSet is made of. The version of its image is the program's."""
    return _of_this_version("kubernetes/base/kustomization.yaml", r'(newTag: ")[^"]*')


def _of_this_version(name: str, before: str) -> str:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return re.sub(before, rf"\g<1>{__version__}", text, count=1)


FILES = {
    "config/config.toml": render_sample,
    "docs/man/ksmtuned-py.1": command_page,
    "docs/man/ksmtuned-py.toml.5": config_page,
    "ksmtuned_py/publish/openapi.json": openapi,
    "packaging/debian/changelog": debian_changelog,
    "packaging/grafana/fleet.json": fleet_json,
    "packaging/grafana/host.json": host_json,
    "packaging/kubernetes/base/kustomization.yaml": kustomization,
    "packaging/rpm/ksmtuned-py.spec": rpm_spec,
}


def main() -> None:
    """Writes them all."""
    tree = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    for name, render in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
