"""P002 to P005, P018: where partners are reached. A URL that cannot be used at all is found by reading."""

import difflib
import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.pmodes.lint.catalogue import Finding, Severity
from gateway.pmodes.lint.ground import Ground, Partner

#: What the products answer on when nobody changes it: Domibus and Harmony, phase4 and phoss, Holodeck.
PRODUCT_PATHS = ("/services/msh", "/domibus/services/msh", "/as4", "/msh", "/holodeckb2b/as4")
#: Words in names of parties and hosts that are not for production.
_TEST = re.compile(
    r"(?:^|[^a-z])(?:test|tst|acc|acceptance|sim|simulator|demo|dev|sandbox|projectathon|dummy|staging|preprod|uat)"
    r"\d*(?:$|[^a-z])"
)


def endpoints(ground: Ground) -> Iterator[Finding | None]:
    """Every partner's endpoint by itself."""
    for partner in ground.partners():
        if partner.table.endpoint is not None:
            for rule, severity, message, hint in _of_url(partner.table.endpoint):
                yield ground.about(partner, rule, severity, message, below="endpoint", hint=hint)


def _of_url(url: str) -> Iterator[tuple[str, Severity, str, str]]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not _is_loopback(host):
        yield "P002", "warning", f"{url} is plain http: the message is protected, the traffic is not", ""
    if _address(host) and not _is_loopback(host):
        yield "P003", "warning", f"{host} is an address, not a name", ""
    if (meant := odd_path(parts.path)) is not None:
        message = f"the path {parts.path or '/'!r} is not one that AS4 products use"
        yield "P004", "warning" if meant else "info", message, f"did you mean {meant!r}?" if meant else ""


def odd_path(path: str) -> str | None:
    """None for a path as products have it; else the path that may have been meant, or the empty text."""
    bare = path.rstrip("/")
    steps = bare.split("/")
    parent = steps[-2] if len(steps) > 2 else ""
    if steps[-1] in ("as4", "msh") and not (_near(parent, "services") and parent != "services"):
        return None
    if steps[-1] in ("as4", "msh"):
        return "/".join([*steps[:-2], "services", steps[-1]])
    near = difflib.get_close_matches(bare.lower(), PRODUCT_PATHS, 1, 0.75)
    return near[0] if near else ""


def _near(word: str, known: str) -> bool:
    return bool(difflib.get_close_matches(word.lower(), [known], 1, 0.8))


def shared(ground: Ground) -> Iterator[Finding | None]:
    """P005: endpoints and signing certificates that two partners have."""
    endpoints: dict[str, str] = {}
    pins: dict[bytes, str] = {}
    for partner in ground.partners():
        if (url := partner.table.endpoint) and (twin := endpoints.setdefault(url, partner.name)) != partner.name:
            message = f"{partner.name} has the same endpoint as {twin}: {url}"
            yield ground.about(partner, "P005", "warning", message, below="endpoint")
        for der in partner.party.signing if partner.party else ():
            if (twin := pins.setdefault(der, partner.name)) != partner.name:
                message = f"{partner.name} has the same signing certificate as {twin}: each can sign for the other"
                yield ground.about(partner, "P005", "warning", message)


def testing(ground: Ground) -> Iterator[Finding | None]:
    """P018: partners whose name, type or host says test, where ours does not."""
    for partner in ground.partners():
        file = partner.document.file
        if _is_test(partner) and not file.allow_http and not _says_test(file.own):
            yield ground.about(
                partner, "P018", "warning", f"{partner.name} looks like a test party, {file.own} does not"
            )


def _is_test(partner: Partner) -> bool:
    texts = (
        partner.name,
        partner.table.id,
        (partner.table.type or "").rpartition(":")[2],
        urlsplit(partner.table.endpoint or "").hostname,
    )
    return any(_says_test(text) for text in texts if text)


def _says_test(text: str) -> bool:
    return bool(_TEST.search(text.lower().replace("_", "-")))


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_address(host) and ipaddress.ip_address(host).is_loopback)
