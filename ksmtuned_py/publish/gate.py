"""Refuses requests that a web page of somebody else has its reader's browser make. Pure.

A page may have its own name lead to our address (DNS rebinding), and would then read what only the reader may. Such a
request comes with that name as its Host. Without a name there is nothing to rebind, so every address is let in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ksmtuned_py.publish.answers import Answer, Environ, error

LOCAL_NAMES = frozenset({"localhost"})
FOR_PROGRAMS = frozenset({"/metrics", "/healthz", "/readyz"})
"""What scrapers and probes ask for, by whatever name their service discovery has for this host."""
OF_BROWSERS = ("HTTP_ORIGIN", "HTTP_REFERER", "HTTP_ACCEPT_LANGUAGE", "HTTP_SEC_FETCH_SITE")
"""Headers by which a browser is known. It always sends Accept-Language, and no script can take that away."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Knows the names of this host."""

    names: frozenset[str] = LOCAL_NAMES

    def refusal(self, environ: Environ) -> Answer | None:
        """The answer to a request that is refused; None for one that is let in."""
        host = environ.get("HTTP_HOST", "")
        if not self._is_ours(host) and not _is_programs(environ):
            return error("this host is not known by that name; metrics.names has its names", "403 Forbidden")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not _is_same(origin, host):
            return error("only pages of this host may ask", "403 Forbidden")
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header has an address, or a name of ours. Every browser sends one."""
        name = host_name(host)
        return not host or (name is not None and (name in self.names or _is_address(name)))


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def own_names(hostname: str, hosts: str, configured: Iterable[str] = ()) -> frozenset[str]:
    """The names of a host called so: the local ones, those on its lines in /etc/hosts, and those in the configuration.

    A resolver is not asked, for it might not answer, or say what a stranger wants.
    """
    lines = (line.partition("#")[0].lower().split()[1:] for line in hosts.splitlines())
    beside = [name for names in lines if hostname.lower() in names for name in names]
    return LOCAL_NAMES | {hostname.lower(), *beside, *(name.lower() for name in configured)}


def _is_programs(environ: Environ) -> bool:
    return environ["PATH_INFO"] in FOR_PROGRAMS and not any(name in environ for name in OF_BROWSERS)


def _is_same(origin: str, host: str) -> bool:
    """Whether a page comes from where it asks. A proxy may have ended TLS, so the scheme does not count."""
    scheme, separator, place = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and place.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
