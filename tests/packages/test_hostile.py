"""What a system may look like when the package comes and goes: nothing of others' is touched, and all is said."""

from pathlib import Path

import pytest

from tests.packages.conftest import CONFIG, DPKG, PACKAGES, PURGE, STATE, Installed
from tests.packages.test_upgrades import install
from tests.support.process import wait_for
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

IMPORTED = f"{CONFIG}/config.d/20-imported.toml"


@pytest.mark.parametrize(
    ("conf", "taken"),
    [
        ("printf 'KSM_THRES_COEF=33 # M\\344rz\\n' > /etc/ksmtuned.conf", True),
        ("echo KSM_THRES_COEF=33 > /srv/conf; ln -s /srv/conf /etc/ksmtuned.conf", True),
        ("printf \"LOGFILE='/var/log/M\\344rz'\\nKSM_THRES_COEF=33\\n\" > /etc/ksmtuned.conf", True),
        ("head -c 100000000 /dev/zero > /etc/ksmtuned.conf", False),
        ("echo 'KSM_THRES_COEF=$(reboot)' > /etc/ksmtuned.conf", False),
        ("ln -s /nowhere /etc/ksmtuned.conf", None),
        ("mkdir /etc/ksmtuned.conf", None),
        ("mkfifo /etc/ksmtuned.conf", None),
    ],
    ids=["latin-1", "link", "latin-1 value", "100 MB", "a command", "link to nowhere", "directory", "fifo"],
)
def test_whatever_the_old_configuration_is(bare: Installed, newest: Path, conf: str, taken: bool | None) -> None:
    bare.shell(conf)
    said = bare.shell(f"LC_ALL=de_DE.ISO-8859-1 LANG=C dpkg --install {PACKAGES}/{newest.name}")
    assert bare.shows("ActiveState") == "active", said
    assert (f"are in {IMPORTED}" in said, "could not be taken along" in said) == (taken is True, taken is False)
    assert bare.container.ended("test", "-e", IMPORTED).returncode == (0 if taken else 1)
    assert bare.container.ended("test", "-e", f"{IMPORTED}.new").returncode == 1


def test_no_room_for_the_old_settings_is_told_and_stops_nothing(bare: Installed, newest: Path) -> None:
    bare.shell("echo KSM_THRES_COEF=33 > /etc/ksmtuned.conf; mkdir -p /etc/ksmtuned-py/config.d")
    bare.shell(f"mount -t tmpfs -o size=16k tmpfs {CONFIG}/config.d")
    bare.container.ended("sh", "-c", f"{DPKG} --unpack {PACKAGES}/{newest.name}")
    bare.container.ended("sh", "-c", f"head -c 100000 /dev/zero > {CONFIG}/config.d/full")
    said = bare.shell(f"{DPKG} --configure -a")
    assert "could not be taken along" in said
    assert bare.container.run("ls", f"{CONFIG}/config.d").split() == ["10-observe.toml", "README", "full"]
    bare.shell(f"umount {CONFIG}/config.d")


def test_no_link_in_a_configuration_of_another_user_is_followed(bare: Installed, newest: Path) -> None:
    bare.shell("echo KSM_THRES_COEF=33 > /etc/ksmtuned.conf; echo mine > /srv/precious")
    bare.shell(f"mkdir -p {CONFIG}/config.d; chown -R 65534 {CONFIG}; ln -s /srv/precious {IMPORTED}.new")
    said = install(bare, newest)
    assert f"are in {IMPORTED}" in said
    assert bare.shell(f"cat /srv/precious; rm /srv/precious; stat --format=%F {IMPORTED}") == "mine\nregular file\n"


def test_without_sysfs_and_without_a_running_systemd(bare: Installed, newest: Path) -> None:
    line = f"umount -l /sys; mount -t tmpfs tmpfs /run; {DPKG} --install {PACKAGES}/{newest.name}; {PURGE}"
    said = bare.shell(f"unshare --mount sh -ec '{line}'")
    assert "error" not in said.lower()
    assert bare.container.ended("test", "-e", CONFIG).returncode == 1


def test_a_command_of_the_same_name_is_not_taken_for_ours(bare: Installed, newest: Path) -> None:
    bare.shell("printf '#!/bin/sh\\ntouch /taken\\n' > /usr/local/bin/ksmtuned-py; chmod +x /usr/local/bin/ksmtuned-py")
    bare.shell("echo KSM_THRES_COEF=33 > /etc/ksmtuned.conf")
    install(bare, newest)
    bare.shell(PURGE)
    bare.shell("rm /usr/local/bin/ksmtuned-py")
    assert bare.container.ended("test", "-e", "/taken").returncode == 1


def test_another_manager_that_is_no_package_is_left_at_work(bare: Installed, newest: Path) -> None:
    bare.shell("systemd-run --unit=ksmtuned sleep infinity")
    said = install(bare, newest)
    assert "not started, because ksmtuned is at work" in said
    assert bare.shows("ActiveState") == "inactive"
    bare.shell("systemctl stop ksmtuned; systemctl start ksmtuned-py")
    assert bare.shows("ActiveState") == "active"


OTHERS = """
mkdir -p /srv/shared /srv/mounted
echo 'guests.libvirt = false' | tee /srv/shared/50-site.toml > /srv/mounted/50-site.toml
ln -s /srv/shared/50-site.toml {config}/config.d/50-site.toml
ln -s /srv/shared {config}/shared
mkdir -p {config}/mounted {config}/deep/deeper
mount --bind /srv/mounted {config}/mounted
touch {config}/deep/deeper/file
"""


def test_a_purge_follows_no_link_and_no_mount(bare: Installed, newest: Path) -> None:
    install(bare, newest)
    bare.shell(OTHERS.format(config=CONFIG))
    said = bare.shell(PURGE)
    assert f"{CONFIG} stays, for there is something of others' in it" in said
    assert bare.shell("cat /srv/shared/50-site.toml") == bare.shell("cat /srv/mounted/50-site.toml") != ""
    left = bare.shell(f"find {CONFIG} -mindepth 1").split()
    places = ("deep", "deep/deeper", "deep/deeper/file", "mounted", "mounted/50-site.toml")
    assert sorted(left) == [f"{CONFIG}/{place}" for place in places]
    bare.shell(f"umount {CONFIG}/mounted; rm -r /srv/shared /srv/mounted")


@pytest.mark.parametrize("how", ["mount --bind", "ln -s"])
def test_a_configuration_that_lives_elsewhere_keeps_its_drop_ins(bare: Installed, newest: Path, how: str) -> None:
    place = f"mkdir -p {CONFIG}" if how == "mount --bind" else "true"
    bare.shell(f"mkdir -p /srv/all; {place}; {how} /srv/all {CONFIG}")
    install(bare, newest)
    bare.shell(f"echo 'policy.name = \"fixed\"' > {CONFIG}/config.d/60-mine.toml")
    said = bare.shell(PURGE)
    assert f"{CONFIG} stays, for there is something of others' in it" in said
    assert bare.shell("find /srv/all -type f") == "/srv/all/config.d/60-mine.toml\n"
    bare.container.ended("sh", "-c", f"umount {CONFIG}; rm -rf {CONFIG} /srv/all")


KEPT = f"""
mkdir -p /srv/shared {STATE}/deep; echo mine > /srv/shared/precious; touch {STATE}/deep/file
ln -s /srv/shared/precious {STATE}/history.sqlite-wal; ln -s /srv/shared {STATE}/link; touch {STATE}/.hidden
"""


def test_a_purge_of_the_past_follows_no_link(bare: Installed, newest: Path) -> None:
    install(bare, newest)
    bare.shell(KEPT)
    said = bare.shell(PURGE)
    assert f"{STATE} stays, for there is something of others' in it" in said
    assert bare.shell(f"find {STATE} -mindepth 1").split() == [f"{STATE}/deep", f"{STATE}/deep/file"]
    assert bare.shell(f"cat /srv/shared/precious; rm -r /srv/shared {STATE}") == "mine\n"


def test_a_past_that_lives_on_another_disk_stays(bare: Installed, newest: Path) -> None:
    bare.shell(f"mkdir /srv/disk; ln -s /srv/disk {STATE}")
    install(bare, newest)
    assert bare.shows("ActiveState") == "active", bare.journal()
    wait_for(lambda: bare.shell("ls /srv/disk") == "history.sqlite\n", SECONDS, "a past on the disk")
    bare.shell(PURGE)
    assert bare.shell(f"ls /srv/disk; rm -rf /srv/disk {STATE}") == "history.sqlite\n"


def test_where_no_past_can_be_kept_it_starts_all_the_same(bare: Installed, newest: Path) -> None:
    install(bare, newest)
    bare.shell(f"rm -r {STATE}; ln -s /nowhere {STATE}; systemctl restart ksmtuned-py")
    wait_for(lambda: "the history lives in memory alone" in bare.journal(), SECONDS, "a word about it")
    bare.shell(f"{PURGE}; rm -f {STATE}")


def test_a_unit_in_the_way_of_ours_is_told(bare: Installed, newest: Path) -> None:
    unit = "/usr/local/lib/systemd/system/ksmtuned-py.service"
    bare.shell(f"mkdir -p /usr/local/lib/systemd/system; printf '[Service]\\nExecStart=/bin/sleep 1d\\n' > {unit}")
    said = install(bare, newest)
    assert f"{unit} stands in the way of the package's unit" in said
    bare.shell(f"{PURGE}; rm {unit}; systemctl daemon-reload")
    assert "stands in the way" not in install(bare, newest)
