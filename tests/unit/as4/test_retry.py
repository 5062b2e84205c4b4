import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.as4.pmode import RetryPolicy
from gateway.as4.retry import next_wait, spread_wait

MIDDLE = b"\x80" + bytes(7)  # no jitter, either way
LEAST, MOST = bytes(8), b"\xff" * 8

POLICIES = st.builds(
    RetryPolicy,
    first=st.floats(0, 1e6), factor=st.floats(0, 1e3), max=st.floats(0, 1e6),
    count=st.integers(0, 1000), window=st.floats(0, 1e7), jitter=st.floats(0, 1),
)  # fmt: skip


def wait(policy, retries_made=0, elapsed=0.0, random=MIDDLE):
    return next_wait(policy, retries_made=retries_made, elapsed=elapsed, entropy=lambda n: random[:n])


def moments(policy, *, each_takes=0.0, random=MIDDLE) -> list[float]:
    """When the retries happen, counted from submission."""
    now, found = each_takes, []
    while (pause := wait(policy, len(found), now, random)) is not None:
        found.append(now + pause)
        now = found[-1] + each_takes
    return found


@given(POLICIES, st.integers(0, 2000), st.floats(-1e3, 2e7), st.binary(min_size=8, max_size=8))
def test_bounds(policy, retries_made, elapsed, random):
    pause = wait(policy, retries_made, elapsed, random)
    if retries_made >= policy.count or elapsed >= policy.window:
        assert pause is None
    elif policy.window > 0:
        assert 0 <= pause <= policy.window - max(0.0, elapsed)
        assert pause <= policy.max * (1 + policy.jitter) * (1 + 1e-9)


@given(POLICIES, st.binary(min_size=8, max_size=8), st.floats(0.001, 1e6))
def test_an_end_comes(policy, random, each_takes):
    found = moments(policy, each_takes=each_takes, random=random)
    assert len(found) <= policy.count
    assert all(moment <= policy.window * (1 + 1e-9) for moment in found)


def test_exponential():
    policy = RetryPolicy(first=60, factor=5, max=10_800, count=6, window=1e6, jitter=0)
    waits = [wait(policy, n) for n in range(7)]
    assert waits == [60, 300, 1500, 7500, 10_800, 10_800, None]


def test_a_power_beyond_all_numbers():
    assert wait(RetryPolicy(first=1, factor=10, max=50, count=10_000, window=1e6, jitter=0), 9_999) == 50
    assert wait(RetryPolicy(first=0, factor=10, max=50, count=10_000, window=1e6, jitter=0), 9_999) == 0


@pytest.mark.parametrize(("random", "expected"), [(LEAST, 90.0), (MIDDLE, 100.0), (MOST, 110.0)])
def test_jitter_goes_both_ways(random, expected):
    policy = RetryPolicy(first=100, factor=1, max=100, count=3, window=1000, jitter=0.1)
    assert wait(policy, random=random) == pytest.approx(expected)


@given(st.floats(0, 1))
def test_jitter_bounds(jitter):
    policy = RetryPolicy(first=100, factor=1, max=100, count=1, window=1e6, jitter=jitter)
    pause = wait(policy, random=os.urandom(8))
    assert 100 * (1 - jitter) - 1e-6 <= pause <= 100 * (1 + jitter) + 1e-6


def test_domibus_constant():
    """`12;4;CONSTANT` of the OOTS P-Mode: four retries, one every three minutes, the last after twelve."""
    policy = RetryPolicy(first=180, factor=1, max=180, count=4, window=720, jitter=0)
    assert moments(policy) == [180, 360, 540, 720]
    assert len(moments(policy, each_takes=30)) == 4
    assert moments(policy, each_takes=30)[-1] == 720
    for random in (LEAST, MOST):
        jittered = RetryPolicy(first=180, factor=1, max=180, count=4, window=720, jitter=0.1)
        assert len(moments(jittered, each_takes=2, random=random)) == 4


def test_domibus_send_once():
    assert moments(RetryPolicy(count=0)) == []


def test_domibus_progressive():
    """`9;1;2;PROGRESSIVE`: after 1, 2, 4 and 8 minutes, as far as the window goes."""
    policy = RetryPolicy(first=60, factor=2, max=540, count=4, window=15 * 60, jitter=0)
    assert moments(policy) == [60, 180, 420, 900]


def test_the_window_ends_it():
    policy = RetryPolicy(first=60, factor=1, max=60, count=10, window=100, jitter=0)
    assert wait(policy, elapsed=90) == 10
    assert wait(policy, elapsed=100) is None
    assert wait(policy, elapsed=-5) == 60


def test_how_long_the_receipt_of_a_pulled_message_may_take():
    """The waits of retries, whether or not there is another one."""
    policy = RetryPolicy(first=30, factor=2, max=180, count=2, window=100, jitter=0)
    assert [spread_wait(policy, n, lambda size: bytes(size)) for n in range(5)] == [30, 60, 120, 180, 180]
    spread = RetryPolicy(first=100, factor=1, max=100, jitter=0.1)
    assert spread_wait(spread, 0, lambda size: bytes(size)) == pytest.approx(90)
    assert spread_wait(spread, 10**6, lambda size: b"\xff" * size) == pytest.approx(110)
