"""Listening sockets: both families, and errors that say who is in the way."""

import os
import socket

import pytest

from gateway.cli.listeners import open_listener, shown
from gateway.errors import ConfigError

KEY = "as4.bind"


@pytest.fixture
def opened():
    made = []

    def open_(bind):
        made.extend(open_listener(bind, KEY))
        return made

    yield open_
    for one in made:
        one.close()


def test_one_address(opened):
    [one] = opened("127.0.0.1:0")
    assert shown(one).startswith("127.0.0.1:")
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    socket.create_connection(one.getsockname(), 1).close()


def test_ipv6(opened):
    [one] = opened("[::1]:0")
    assert shown(one).startswith("[::1]:")


def test_every_address_of_both_families_on_one_port(opened):
    four, six = opened(":0")
    assert (four.family, six.family) == (socket.AF_INET, socket.AF_INET6)
    port = four.getsockname()[1]
    assert six.getsockname()[1] == port
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 1).close()


def test_a_taken_port_says_by_whom_and_which_setting(opened):
    [one] = opened("127.0.0.1:0")
    port = one.getsockname()[1]
    with pytest.raises(ConfigError) as error:
        open_listener(f"127.0.0.1:{port}", KEY)
    assert f"port {port} is in use by " in str(error.value) and f"(pid {os.getpid()})" in str(error.value)
    assert error.value.key == KEY and KEY in error.value.hint


@pytest.mark.parametrize("bind", ["192.0.2.1:0", "no-such-host.invalid:8443"])
def test_an_address_that_is_not_ours(bind):
    with pytest.raises(ConfigError) as error:
        open_listener(bind, KEY)
    assert error.value.key == KEY
