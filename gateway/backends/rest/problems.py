"""What the REST door says when it cannot do what was asked [rfc9457].

Every refusal leaves as application/problem+json with a stable `type`, a code (GW-nnnn),
the stage, who must act, and a hint, in English or Latvian. The texts are data
(`problems.toml`). Exceptions are translated here and nowhere else in this backend.

What a caller may read: `detail` of a refusal is about its own submission. Errors of the
gateway itself (5xx) and `NotFound` have no detail, so that neither an internal address
nor the existence of somebody else's message shows.
"""

import re
import tomllib
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import Struct, field
from starlette.responses import Response

from gateway.plugin import (
    ClaimLost,
    DigestMismatch,
    DiscoveryFailed,
    Finding,
    GatewayError,
    NotFound,
    NotPossible,
    OffsetConflict,
    OutOfScope,
    Overloaded,
    QuotaReached,
    RulesBroken,
    StoreUnavailable,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
)

Language = Literal["en", "lv"]
#: Seconds a caller is asked to wait after a 503; about as long as a switch of the pair takes.
RETRY_AFTER = "5"


class Text(Struct, frozen=True):
    """One sentence in each language."""

    en: str
    lv: str


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of `problems.toml`."""

    status: int
    code: str
    stage: str
    who: Literal["backend", "operator", "nobody"]
    title: Text
    hint: Text


class Place(Struct, frozen=True):
    """One place that is wrong. `pointer` is a JSON pointer into the document that was sent."""

    pointer: str
    detail: str


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to a request that could not be fulfilled."""

    type: str
    title: str
    status: int
    code: str
    stage: str
    who: str
    hint: str
    trace_id: str
    detail: str = ""
    errors: tuple[Place, ...] = ()
    findings: tuple[Finding, ...] = ()


KINDS: dict[str, Kind] = msgspec.convert(
    tomllib.loads(files(__package__).joinpath("problems.toml").read_text("utf-8")), dict[str, Kind]
)


class Refused(GatewayError):
    """The door refuses a request. `slug` is a key of `KINDS`."""

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        errors: tuple[Place, ...] = (),
        findings: tuple[Finding, ...] = (),
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.slug, self.errors, self.findings = slug, errors, findings
        self.hint, self.headers = hint, headers or {}


class Disconnected(GatewayError):
    """The caller has gone away in the middle of its request; nobody is left to answer."""


class Catalogue(Struct, frozen=True):
    """What a problem type means, in both languages; served at its `type`."""

    type: str
    code: str
    status: int
    stage: str
    who: str
    title: Text = field()
    hint: Text = field()


def catalogue(slug: str) -> Catalogue:
    """The entry of one problem type. Raises `NotFound`."""
    kind = KINDS.get(slug)
    if kind is None:
        raise NotFound
    return Catalogue(
        type=f"/problems/{slug}", code=kind.code, status=kind.status, stage=kind.stage, who=kind.who,
        title=kind.title, hint=kind.hint,
    )  # fmt: skip


def translate(error: Exception) -> Refused:
    """The refusal that `error` becomes at this edge."""
    match error:
        case Refused():
            return error
        case SubmissionConflict():
            slug = "idempotency-key-reused" if error.field == "idempotency_key" else "message-id-conflict"
            return Refused(slug, error.detail, hint=error.hint)
        case OutOfScope():
            return Refused("out-of-scope", hint=error.hint)
        case RulesBroken():
            return Refused("rules-broken", error.detail, findings=error.findings)
        case SubmissionRefused():
            errors = (Place(pointer(error.field), error.detail),) if error.field else ()
            return Refused("submission-refused", error.detail, errors=errors, hint=error.hint)
        case NotFound():
            return Refused("not-found")
        case ClaimLost():
            return Refused("claim-lost")
        case NotPossible():
            return Refused("state-conflict", f"{error.detail}; it is {error.state}" if error.state else error.detail)
        case OffsetConflict():
            return Refused("offset-conflict", error.detail, headers={"Upload-Offset": str(error.received)})
        case DigestMismatch():
            return Refused("digest-mismatch", error.detail)
        case QuotaReached():
            return Refused("upload-quota", error.detail)
        case TooLarge():
            return Refused("payload-too-large", error.detail)
        case StoreUnavailable():
            return Refused("store-unavailable", headers={"Retry-After": RETRY_AFTER})
        case Overloaded():
            return Refused("overloaded", headers={"Retry-After": RETRY_AFTER})
        case DiscoveryFailed() if error.temporary:
            return Refused("receiver-not-found-now", headers={"Retry-After": RETRY_AFTER})
        case GatewayError() if error.temporary:
            return Refused("overloaded", headers={"Retry-After": RETRY_AFTER})
        case _:
            return Refused("internal-error")


def response(refused: Refused, language: Language, trace_id: str) -> Response:
    """The HTTP answer for a refusal."""
    kind = KINDS[refused.slug]
    problem = Problem(
        type=f"/problems/{refused.slug}",
        title=getattr(kind.title, language),
        status=kind.status,
        detail=refused.detail,
        code=kind.code,
        stage=kind.stage,
        who=kind.who,
        hint=refused.hint or getattr(kind.hint, language),
        trace_id=trace_id,
        errors=refused.errors,
        findings=refused.findings,
    )
    headers = {"Content-Language": language, "Vary": "Accept-Language"} | refused.headers
    return Response(msgspec.json.encode(problem), kind.status, headers, "application/problem+json")


def pointer(path: str) -> str:
    """A JSON pointer, as a URI fragment, from `$.parts[0].cid` or `parts[0].cid` [rfc6901 6].

    The name of an ebMS element (`eb:Service`) is no place in the document: `#`, the whole.
    """
    steps = re.findall(r"[^.\[\]$`]+", path.partition("[]")[0]) if ":" not in path else []
    return "#" + "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def invalid(error: msgspec.ValidationError, slug: str = "invalid-document") -> Refused:
    """The refusal for a document that msgspec did not accept."""
    what, _, where = str(error).partition(" - at `")
    return Refused(slug, what, errors=(Place(pointer(where.rstrip("`")), what),))


def language_of(accept: str) -> Language:
    """The one of our languages that Accept-Language prefers; English when it names neither."""
    best: tuple[float, Language] = (0.0, "en")
    for item in accept[:256].split(","):
        tag, _, parameters = item.partition(";")
        primary = tag.strip().partition("-")[0].lower()
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameters) if parameters else None
        quality = float(weight[1]) if weight else 0.0 if parameters else 1.0
        if primary in ("en", "lv") and quality > best[0]:
            best = (quality, "en" if primary == "en" else "lv")
    return best[1]
