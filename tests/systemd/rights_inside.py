"""Does to a child, which stands in ksmd's place, what the daemon does to ksmd; prints how that ended."""

import os
import subprocess
from contextlib import suppress

from ksmtuned_py.backends.ksmd import KsmdThread
from ksmtuned_py.door import Door


def main() -> None:
    """Print whether each thing took."""
    with subprocess.Popen(["/usr/bin/sleep", "60"]) as child:
        ksmd = KsmdThread(Door(), child.pid)
        cpus = ksmd.cpus()
        assert cpus is not None
        for nice in (5, -5, 5):
            ksmd.set_nice(nice)
            print(f"nice {ksmd.nice()}")
        for each in (cpus.partition("-")[0].partition(",")[0], cpus):
            ksmd.set_cpus(each)
        print("cpus", "as found" if ksmd.cpus() == cpus else "changed")
        for policy in (os.SCHED_FIFO, os.SCHED_IDLE):
            with suppress(PermissionError):
                os.sched_setscheduler(child.pid, policy, os.sched_param(int(policy == os.SCHED_FIFO)))
        print("class", os.sched_getscheduler(child.pid))
        child.kill()


if __name__ == "__main__":
    main()
