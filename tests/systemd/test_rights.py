"""The shipped unit lets the service do to ksmd what the daemon does, and no more."""

from pathlib import Path

from tests.support.container import PYTHON
from tests.systemd.conftest import UNIT, Service

DROP_IN = Path("/run/systemd/system", f"{Path(UNIT).name}.d", "rights.conf")
LINES = (
    "[Service]",
    "Type=oneshot",
    "ExecStart=",
    f"ExecStart={PYTHON}/bin/python -m tests.systemd.rights_inside",
)
"""The unit as it is but for its program, since no container shows ksmd."""


def test_it_may_set_ksmds_nice_value_and_cpus_but_no_class(service: Service) -> None:
    run = service.container.run
    run("mkdir", "-p", str(DROP_IN.parent))
    run("sh", "-c", f'printf "%s\\n" "$@" > {DROP_IN}', "sh", *LINES)
    run("systemctl", "daemon-reload")
    try:
        assert service.systemctl("start") == "", service.journal()
        said = service.journal()
    finally:
        run("rm", str(DROP_IN))
        run("systemctl", "daemon-reload")
    seen = [line for line in said.splitlines() if line.startswith(("nice ", "cpus ", "class "))]
    assert seen == ["nice 5", "nice -5", "nice 5", "cpus as found", "class 0"]
