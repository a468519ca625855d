import socket

import pytest

from testbed.ports import Ports, port_is_free
from testbed.server import ServerError


def test_a_port_is_handed_out_once_until_it_is_given_back() -> None:
    ports = Ports(first=21_000, last=21_002)
    taken = {ports.take(), ports.take(), ports.take()}
    assert taken == {21_000, 21_001, 21_002}
    with pytest.raises(ServerError, match=r"no free port on 127\.0\.0\.1 from 21000 to 21002"):
        ports.take()
    ports.give_back(21_001)
    assert ports.take() == 21_001


def test_a_port_on_which_somebody_listens_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 21_010)):
        assert not port_is_free(21_010)
        assert Ports(first=21_010, last=21_011).take() == 21_011
    assert port_is_free(21_010)


@pytest.mark.parametrize(("first", "last"), [(80, 90), (5000, 4000), (60_000, 70_000)])
def test_a_range_without_usable_ports_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="wanted a range within 1024 to 65535"):
        Ports(first=first, last=last)
