"""Domibus' retry strings, times in minutes, and our retry terms [domibus 3.2]."""

from gateway.as4.pmode import RetryPolicy
from gateway.config import Duration
from gateway.pmodes.agreements import Retry

#: The agreement format has a bound, too; nobody retries more often.
MAX_COUNT = 100

ONCE = Retry(count=0)


def parse(text: str | None) -> Retry:
    """The retry terms of a string. Raises `ValueError` that says what is wrong."""
    if text is None:
        return ONCE
    fields = [field.strip() for field in text.split(";")]
    strategy = fields[-1].upper()
    try:
        numbers = [int(field) for field in fields[:-1]]
    except ValueError:
        raise ValueError("expected whole numbers of minutes and a strategy") from None
    if any(not 0 <= number <= 10_000_000 for number in numbers):
        raise ValueError("a number is negative or too large")
    if strategy == "SEND_ONCE":
        return ONCE
    if strategy == "CONSTANT" and len(numbers) == 2:
        return _constant(*numbers)
    if strategy == "PROGRESSIVE" and len(numbers) == 3:
        return _progressive(*numbers)
    raise ValueError("expected timeout;count;CONSTANT, timeout;initial;factor;PROGRESSIVE or timeout;count;SEND_ONCE")


def _constant(timeout: int, count: int) -> Retry:
    """`count` retries, evenly spread over the time."""
    if not timeout or not count:
        return ONCE
    if count > MAX_COUNT:
        raise ValueError(f"more than {MAX_COUNT} retries")
    wait = Duration(timeout * 60 / count)
    return Retry(first=wait, factor=1.0, max=wait, count=count, window=Duration(timeout * 60), jitter=0.0)


def _progressive(timeout: int, initial: int, factor: int) -> Retry:
    """Waits that grow by the factor, as long as they are not above the timeout."""
    if not timeout or not initial:
        return ONCE
    if factor <= 1 or initial > timeout:
        raise ValueError("PROGRESSIVE needs a factor above 1 and a first wait not above the timeout")
    waits = [initial]
    while waits[-1] * factor <= timeout:
        waits.append(waits[-1] * factor)
    return Retry(first=Duration(initial * 60), factor=float(factor), max=Duration(waits[-1] * 60), count=len(waits),
                 window=Duration(timeout * 60), jitter=0.0)  # fmt: skip


def write(policy: RetryPolicy) -> tuple[str, bool]:
    """The string that comes nearest, and whether it says the same."""
    if policy.count == 0:
        return "0;0;SEND_ONCE", True
    if policy.factor > 1 and policy.first % 60 == 0 and policy.factor == int(policy.factor):
        text = f"{_minutes(policy.window)};{_minutes(policy.first)};{int(policy.factor)};PROGRESSIVE"
        if _same(text, policy):
            return text, True
    window = policy.window if policy.factor == 1 else min(policy.window, _span(policy))
    text = f"{_minutes(window)};{policy.count};CONSTANT"
    return text, _same(text, policy)


def _same(text: str, policy: RetryPolicy) -> bool:
    try:
        return parse(text).over(RetryPolicy()) == policy
    except ValueError:
        return False


def _span(policy: RetryPolicy) -> float:
    """How long all waits together are, at most the window."""
    total = 0.0
    for n in range(policy.count):
        try:
            total += min(policy.first * policy.factor**n, policy.max)
        except OverflowError:
            total += policy.max
        if total >= policy.window:
            return policy.window
    return total


def _minutes(seconds: float) -> int:
    return max(1, -(-int(seconds) // 60))
