"""When an unanswered message is sent again: reception awareness as a pure function [as4 4.2].

The three strategies known from Domibus are three shapes of one `RetryPolicy`: CONSTANT has
factor 1 (`12;4;CONSTANT`: first and max 180, count 4, window 720), PROGRESSIVE a larger
factor, SEND_ONCE a count of 0.
"""

from collections.abc import Callable

from gateway.as4.pmode import RetryPolicy


def next_wait(
    policy: RetryPolicy, *, retries_made: int, elapsed: float, entropy: Callable[[int], bytes]
) -> float | None:
    """Seconds from now until the next attempt, or None: give up.

    `retries_made` does not count the first attempt, `elapsed` is seconds since submission.
    The last attempts are drawn nearer rather than dropped when they would fall behind the
    end of the window: attempts take time themselves, and `12;4;CONSTANT` promises four
    retries within twelve minutes, the fourth at their very end.
    """
    left = policy.window - max(0.0, elapsed)
    if retries_made >= policy.count or left <= 0:
        return None
    return min(spread_wait(policy, retries_made, entropy), left)


def spread_wait(policy: RetryPolicy, retries_made: int, entropy: Callable[[int], bytes]) -> float:
    """The wait after so many retries, in seconds, whether or not there is another one.

    For a pulled message it is how long its receipt may take.
    """
    try:
        growth = float(policy.factor) ** retries_made
    except OverflowError:
        growth = float("inf")
    wait = min(policy.first * growth, policy.max) if policy.first else 0.0
    # Spread, so that what failed together does not come back together.
    share = int.from_bytes(entropy(8), "big") / 2**64
    return max(wait * (1 + policy.jitter * (2 * share - 1)), 0.0)
