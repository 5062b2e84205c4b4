import asyncpg
import pytest

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.postgres.verdict import Abandoned, ends_connection, verdict


def said(severity, code):
    """What the server said, in German."""
    german = {"ERROR": "FEHLER", "FATAL": "FATAL", "PANIC": "PANIK"}[severity]
    return asyncpg.PostgresError.new({"S": german, "V": severity, "C": code, "M": "Grund: canary", "D": "canary"})


@pytest.mark.parametrize(("error", "in_a_commit", "ends"), [
    pytest.param(said("ERROR", "23505"), StoreUnavailable, False, id="refused"),
    pytest.param(said("ERROR", "55P03"), StoreUnavailable, False, id="lock timeout"),
    pytest.param(said("ERROR", "57014"), StoreUnavailable, False, id="cancelled before the commit"),
    pytest.param(said("ERROR", "25006"), StoreUnavailable, True, id="became a standby"),
    pytest.param(said("ERROR", "40000"), Abandoned, False, id="undone by itself"),
    pytest.param(said("FATAL", "57P01"), OutcomeUnknown, True, id="shut down"),
    pytest.param(said("PANIC", "XX000"), OutcomeUnknown, True, id="crashed"),
    pytest.param(asyncpg.ConnectionDoesNotExistError("closed"), OutcomeUnknown, True, id="closed in the middle"),
    pytest.param(ConnectionResetError(104, "reset"), OutcomeUnknown, True, id="reset"),
    pytest.param(TimeoutError(), OutcomeUnknown, True, id="timed out"),
    pytest.param(asyncpg.InterfaceError("closed"), OutcomeUnknown, True, id="used after its end"),
    pytest.param(asyncpg.DataError("invalid input"), StoreUnavailable, False, id="not encoded"),
    pytest.param(OverflowError("too big"), OutcomeUnknown, True, id="something unforeseen"),
])  # fmt: skip
def test_verdicts(error, in_a_commit, ends):
    assert type(verdict(error, writing=True)) is in_a_commit
    assert not isinstance(verdict(error, writing=False), OutcomeUnknown)
    assert ends_connection(error) is ends
    assert "canary" not in str(verdict(error, writing=False)) or in_a_commit is Abandoned
