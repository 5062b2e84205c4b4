"""What an error says about the fate of a statement that may have committed."""

import asyncpg

from gateway.errors import GatewayError, OutcomeUnknown, StoreUnavailable


class Abandoned(GatewayError):
    """A statement undid itself (`abandon` in SQL): nothing was written."""


def verdict(error: Exception, *, writing: bool) -> GatewayError:
    """The error to raise. `writing`: a commit may have been sent.

    Only when the server itself said ERROR did it certainly do nothing. After anything else
    the connection is of no use any more (`ends_connection`).
    """
    if isinstance(error, GatewayError):
        return error
    if _severity(error) == "ERROR":
        if error.sqlstate == "40000":
            return Abandoned(str(error.args[0]))
        return StoreUnavailable(f"the database refused a statement: {describe(error)}")
    if _not_sent(error):
        return StoreUnavailable(f"a value cannot be stored: {type(error).__name__}")
    if writing:
        return OutcomeUnknown(f"the connection broke during a commit: {describe(error)}")
    return StoreUnavailable(f"the connection broke: {describe(error)}")


def ends_connection(error: Exception) -> bool:
    """Whether the connection must not be used again."""
    if isinstance(error, GatewayError) or _not_sent(error):
        return False
    # 25006: the primary has become a standby.
    return _severity(error) != "ERROR" or error.sqlstate == "25006"


def describe(error: BaseException | None) -> str:
    """An error of the database without the values in it: DETAIL quotes rows, messages may [threats M04]."""
    if error is None:
        return "no host is named"
    parts = [type(error).__name__]
    for attribute in ("sqlstate", "table_name", "constraint_name"):
        if value := getattr(error, attribute, None):
            parts.append(str(value))
    if isinstance(error, OSError) and error.strerror:
        parts.append(error.strerror)
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        parts.append("no server takes writes")
    return " ".join(parts)


def _severity(error: BaseException) -> str | None:
    if not isinstance(error, asyncpg.PostgresError):
        return None
    return getattr(error, "severity_en", None) or getattr(error, "severity", None)


def _not_sent(error: Exception) -> bool:
    """asyncpg could not encode a value. Errors of the server have a severity, those it makes itself have none."""
    return _severity(error) is None and isinstance(error, asyncpg.DataError | ValueError | TypeError)
