"""The file that says who may ask and how it is encrypted: what Prometheus's exporters have in theirs, as TOML. Pure."""

from typing import Annotated

from pydantic import Field

from ksmtuned_py.config.types import Section

# A higher cost would be seconds of CPU time for each guess.
Bcrypt = Annotated[str, Field(pattern=r"^\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A colon would end it in the header.
UserName = Annotated[str, Field(pattern=r"^[^:\x00-\x1f]+$")]


class TlsServer(Section):
    """Where the certificate and its key are."""

    cert_file: str
    key_file: str


class WebConfig(Section):
    """The content of the file."""

    tls_server_config: TlsServer | None = None
    basic_auth_users: dict[UserName, Bcrypt] = Field(default_factory=dict)
    """Passwords as bcrypt hashes, by the users' names."""
    bearer_tokens: dict[str, Sha256] = Field(default_factory=dict)
    """Tokens as their SHA-256, each by a name that is for people alone."""
