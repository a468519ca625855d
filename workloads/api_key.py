"""Keys of servers and of the dashboard: read from the environment, shown nowhere.

A key never stands on a command line, where every user of the machine can read it, nor in anything that is written.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

SERVER_KEY = "TESTBED_API_KEY"
DASHBOARD_KEY = "TESTBED_DASHBOARD_KEY"
HIDDEN = "***"


class ApiKeyError(ValueError):
    """A variable of the environment that holds no key; one line that does not show what it holds."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret whose text is only in `secret`: printed, it is hidden."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return HIDDEN

    @property
    def authorization(self) -> str:
        """The value of HTTP's Authorization header."""
        return f"Bearer {self.secret}"

    def hidden_in(self, text: str) -> str:
        """`text` without the secret, in case a server's answer repeats it."""
        return text.replace(self.secret, HIDDEN)


def server_key(environment: Mapping[str, str] | None = None) -> ApiKey | None:
    """The key of the servers that are started or asked; None when there is none. Raises ApiKeyError."""
    return _key(SERVER_KEY, environment)


def dashboard_key(environment: Mapping[str, str] | None = None) -> ApiKey | None:
    """The key of the dashboard and of /metrics; None when everybody who reaches it may look. Raises ApiKeyError."""
    return _key(DASHBOARD_KEY, environment)


def authorization(key: ApiKey | None) -> dict[str, str]:
    """The headers that show `key`; none without one."""
    return {} if key is None else {"Authorization": key.authorization}


def is_shown(key: ApiKey | None, headers: Mapping[str, str]) -> bool:
    """Whether a request's headers show `key`; where there is none everybody may pass."""
    return key is None or same_secret(headers.get("Authorization", ""), key.authorization)


def same_secret(given: str, wanted: str) -> bool:
    """In a time that tells nothing; `given` may be any bytes that somebody sent."""
    return compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


def drop_keys() -> None:
    """From this process's environment."""
    for name in (SERVER_KEY, DASHBOARD_KEY):
        os.environ.pop(name, None)


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """For a child that needs no key."""
    return {name: value for name, value in environment.items() if name not in (SERVER_KEY, DASHBOARD_KEY)}


def _key(name: str, environment: Mapping[str, str] | None) -> ApiKey | None:
    secret = (os.environ if environment is None else environment).get(name)
    if secret is None:
        return None
    if not secret or not all("!" <= character <= "~" for character in secret):
        raise ApiKeyError(f"{name} is no key: give printable ASCII characters without blanks, or unset it")
    return ApiKey(secret)
