"""Opens what stands before the pages, if the admin wants it: encryption, and keys for whoever may ask."""

import os
import ssl
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ksmtuned_py.config.web import TlsServer, WebConfig
from ksmtuned_py.door.runtime import is_foreign
from ksmtuned_py.errors import UnfitWebConfig
from ksmtuned_py.publish.keys import Keys, has_bcrypt

OTHERS_MAY = 0o007
"""What others than the owner and the group may do with a file of secrets: nothing."""
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Front:
    """Encryption and keys. None = there is none."""

    context: ssl.SSLContext | None = None
    keys: Keys | None = None


def read_front(file: str) -> Front:
    """Read a web configuration and the files that it names; raises UnfitWebConfig. '' is none."""
    if not file:
        return Front()
    try:
        found = WebConfig.model_validate(tomllib.loads(_secret(Path(file)).decode()))
        context = _context(found.tls_server_config) if found.tls_server_config else None
    except ValidationError as error:  # its text has the values, which are nobody's business
        first = error.errors()[0]
        raise UnfitWebConfig(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnfitWebConfig(file, str(error)) from error
    if found.basic_auth_users and not has_bcrypt():
        raise UnfitWebConfig(file, "basic_auth_users: there is no libcrypt here that knows bcrypt")
    is_locked = found.basic_auth_users or found.bearer_tokens
    return Front(context, Keys(found.basic_auth_users, found.bearer_tokens.values()) if is_locked else None)


def _secret(path: Path) -> bytes:
    """The content of a file of secrets; raises OSError, or ValueError where others might know them, too."""
    seen = _seen(path)
    if is_foreign(seen) or seen.st_mode & OTHERS_MAY:
        raise ValueError(f"{path}: others than its owner and group may use it (mode {seen.st_mode & 0o777:o})")
    return path.read_bytes()


def _seen(path: Path) -> os.stat_result:
    """What a file is; raises OSError, or ValueError for what is none, as a pipe, whose other end might never come."""
    seen = path.stat()
    if not stat.S_ISREG(seen.st_mode) or seen.st_size > MOST_BYTES:
        raise ValueError(f"{path} is no file, or a large one")
    return seen


def _context(files: TlsServer) -> ssl.SSLContext:
    _seen(Path(files.cert_file))
    _secret(Path(files.key_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 at least
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.cert_file, files.key_file, password=lambda: "")  # and never ask a terminal
    except ssl.SSLError as error:
        raise ValueError(f"{files.cert_file}, {files.key_file}: {error.reason or error}") from error
    return context
