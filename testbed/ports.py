"""Ports for servers to listen on, outside of the range from which the system picks for outgoing connections."""

import os
import socket

from testbed.server import ServerError

# Linux takes outgoing ports from 32768 on: one of those could be gone between the choice and the server's bind.
FIRST_PORT = 20_000
LAST_PORT = 29_999


class Ports:
    """Hands out free ports of `host`, none twice before it is given back."""

    def __init__(self, host: str = "127.0.0.1", first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        if not 1024 <= first <= last <= 65_535:
            raise ValueError(f"ports {first} to {last}: wanted a range within 1024 to 65535")
        self.host = host
        self._first = first
        self._count = last - first + 1
        self._taken: set[int] = set()
        # Two testbeds on one machine begin in different places: a server binds some seconds after its port was chosen.
        self._next = (os.getpid() * 97) % self._count

    def take(self) -> int:
        """A port that is free now. Raises ServerError when every port of the range is in use."""
        for _ in range(self._count):
            port = self._first + self._next
            self._next = (self._next + 1) % self._count
            if port not in self._taken and port_is_free(port, self.host):
                self._taken.add(port)
                return port
        raise ServerError(
            f"no free port on {self.host} from {self._first} to {self._first + self._count - 1}; "
            "end what listens there or give another range"
        )

    def give_back(self, port: int) -> None:
        """The server that had `port` is gone. Twice is harmless."""
        self._taken.discard(port)


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: connections that have ended must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
