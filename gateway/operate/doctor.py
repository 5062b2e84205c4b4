"""`gateway doctor`: is this node fit to run, and if not, what is to be done.

Every check is one wound that operators of access points really had. A check never
raises: it has a verdict, what was found, and what to do about it.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from gateway.as4.pmode import PModeSet
from gateway.as4.profiles import PROFILES
from gateway.config import Config, Trust
from gateway.errors import CertificateRefused, GatewayError, KeyUnavailable
from gateway.keys.keyring import Keyring
from gateway.keys.trust import check_certificate
from gateway.operate import agreements, expiry
from gateway.operate.doctor_certificates import certificate_checks
from gateway.operate.doctor_check import Check
from gateway.operate.watched import everything
from gateway.pmodes.bundle import Bundle
from gateway.store.api import Store

#: Certificates are to be renewed when this much is left.
EXPIRY_WARNING_DAYS = 30

#: Backends that we go to; all others come to us.
PUSHED = ("soap_push", "filesystem")

Loader = Callable[[], object]


def _try(name: str, load: Loader, fix: str) -> tuple[object | None, Check | None]:
    try:
        return load(), None
    except GatewayError as error:
        return None, Check(name, "fail", str(error), getattr(error, "hint", "") or fix)
    except OSError as error:
        return None, Check(name, "fail", f"{error.filename or ''}: {error.strerror}", fix)


async def examine(
    config: Config,
    *,
    load_pmodes: Callable[[], PModeSet],
    load_keyring: Callable[[], Keyring],
    open_store: Callable[[], Awaitable[Store]],
    lint: Callable[[], list],
    load_bundle: Callable[[], Bundle] | None = None,
    offline: bool = False,
) -> list[Check]:
    """All checks, worst first."""
    checks: list[Check] = [Check("configuration", "ok", "every key is known")]
    pmodes, wrong = _try("agreements", load_pmodes, "mend the file named above; `gateway pmodes lint` says more")
    if wrong:
        checks.append(wrong)
    else:
        parties = [p.name for p in pmodes.parties if not pmodes.is_self(p.party_id)]
        if not pmodes.legs:
            checks.append(Check("agreements", "fail", "no agreement is configured",
                                f"put a TOML file into {config.pmodes}; see pmodes/README.md"))  # fmt: skip
        else:
            checks.append(Check("agreements", "ok", f"{len(pmodes.legs)} legs with {', '.join(parties) or 'nobody'}"))
        findings, wrong = _try("lint", lint, "")
        for finding in findings or ():
            verdict = "fail" if finding.severity == "error" else "warn"
            checks.append(Check(f"lint {finding.rule}", verdict, f"{finding.where}: {finding.message}"))
    keyring, wrong = _try("keys", load_keyring, "check [keys] in the configuration")
    if wrong:
        checks.append(wrong)
    elif pmodes:
        checks.extend(_our_keys(keyring, pmodes, config.trust))
    if pmodes:
        checks.extend(_partners(pmodes, config.trust))
    if pmodes and keyring:
        checks.extend(_ends(config, keyring, pmodes))
    checks.extend(await _store(open_store, load_bundle, pmodes or PModeSet(), config))
    checks.extend(_ports(config))
    checks.append(_folder(Path(config.data.folder)))
    if pmodes and not offline:
        checks.extend(await _reach(pmodes))
    order = {"fail": 0, "warn": 1, "ok": 2}
    return sorted(checks, key=lambda check: order[check.verdict])


def _our_keys(keyring: Keyring, pmodes: PModeSet, trust: Trust) -> list[Check]:
    checks = []
    for party in pmodes.selves:
        profiles = {leg.profile for leg in pmodes.legs if leg.from_party == party or leg.to_party == party}
        for name in sorted(profiles):
            try:
                key = keyring.signing_key(party.party_id, PROFILES[name])
                key.sign(b"doctor")
            except (KeyUnavailable, CertificateRefused) as error:
                checks.append(Check(f"signing key {party.name}", "fail", f"{name}: {error}",
                                    "add a key store with a fitting key under [[keys.store]]"))  # fmt: skip
                continue
            checks.append(_expiry(f"signing key {party.name}", key.certificate, "sign", trust))
        if not keyring.decryption_keys(party.party_id):
            checks.append(Check(f"decryption key {party.name}", "fail", "no private key to decrypt with",
                                "add a key store with a fitting key under [[keys.store]]"))  # fmt: skip
    return checks


def _partners(pmodes: PModeSet, trust: Trust) -> list[Check]:
    checks = []
    for party in pmodes.parties:
        if pmodes.is_self(party.party_id):
            continue
        if not party.signing and party.trust is None:
            checks.append(Check(f"partner {party.name}", "fail", "no signing certificate is pinned",
                                "set `certificate` of the party in its agreement"))  # fmt: skip
        if party.trust is not None:
            checks.extend(_anchor(f"partner {party.name} (anchor)", der) for der in party.trust.anchors)
        checks.extend(_expiry(f"partner {party.name}", certificate, "sign", trust) for certificate in party.signing)
        if party.encryption and party.encryption not in party.signing:
            checks.append(_expiry(f"partner {party.name} (encryption)", party.encryption, "encrypt", trust))
    return checks


def _ends(config: Config, keyring: Keyring, pmodes: PModeSet) -> list[Check]:
    """What no other check here looks at: TLS, CAs beside the anchors, keys that are not used yet. A failure when
    our TLS is over, else a warning below 7 days."""
    now, checks = datetime.now(UTC), []
    for group in expiry.grouped(everything(config, keyring, pmodes)):
        uses = {w.use for w in group.uses}
        if not uses & {"tls-server", "tls-client", "tls-ca", "ca", "decrypt"}:
            continue
        days, one = expiry.days_left(group.first.not_after, now), group.first
        if days < expiry.URGENT:
            verdict = "fail" if one.not_after < now and uses & {"tls-server", "tls-client"} else "warn"
            text = f"{one.subject} ({', '.join(sorted(uses))}) valid until {one.not_after:%Y-%m-%d} ({days} days)"
            checks.append(Check(f"end {', '.join(group.owners[:3])}", verdict, text, "renew it; `gateway certs watch`"))
    return checks


def _anchor(name: str, der: bytes) -> Check:
    """The time of a CA that paths may end at."""
    certificate, now = x509.load_der_x509_certificate(der), datetime.now(UTC)
    end, who = certificate.not_valid_after_utc, certificate.subject.rfc4514_string()
    if not certificate.not_valid_before_utc <= now <= end:
        text = f"{who} is not valid now (until {end:%Y-%m-%d})"
        return Check(name, "fail", text, "put the CA's successor into the file")
    days = (end - now).days
    hint = "put the CA's successor into the file, too" if days < EXPIRY_WARNING_DAYS else ""
    return Check(name, "warn" if hint else "ok", f"{who} valid until {end:%Y-%m-%d} ({days} days)", hint)


def _expiry(name: str, der: bytes, use: str, trust: Trust) -> Check:
    now = datetime.now(UTC)
    try:
        check_certificate(der, use=use, now=now, allow=trust)
    except CertificateRefused as refused:
        return Check(name, "fail", str(refused), "import the current certificate")
    end = x509.load_der_x509_certificate(der).not_valid_after_utc
    days = (end - now).days
    text = f"certificate valid until {end:%Y-%m-%d} ({days} days)"
    return Check(name, "warn" if days < EXPIRY_WARNING_DAYS else "ok", text,
                 "plan its renewal" if days < EXPIRY_WARNING_DAYS else "")  # fmt: skip


def routes(pmodes: PModeSet) -> dict[str, tuple[str, ...]]:
    """Which actions arrive at which backend."""
    found: dict[str, set[str]] = {}
    for leg in pmodes.legs:
        if pmodes.is_self(leg.to_party.party_id) and not leg.is_internal:
            found.setdefault(leg.backend, set()).add(leg.action)
    return {backend: tuple(sorted(actions)) for backend, actions in sorted(found.items())}


async def _consumers(store: Store, wanted: dict[str, tuple[str, ...]], config: Config) -> list[Check]:
    """Whether somebody can take what arrives: a backend we push to, or a client that comes for it."""
    served = {client.backend for client in await store.clients() if not client.revoked}
    checks = []
    for backend, actions in wanted.items():
        pushed = config.backends.get(backend, {}).get("kind") in PUSHED
        text = f"gets {', '.join(actions)}"
        if pushed or backend in served:
            checks.append(Check(f"backend {backend}", "ok", text))
        else:
            checks.append(Check(f"backend {backend}", "warn", f"{text}, and no client may take them",
                                f"gateway backends create NAME --backend {backend}"))  # fmt: skip
    return checks


async def _store(
    open_store: Callable[[], Awaitable[Store]], load_bundle: Callable[[], Bundle] | None,
    pmodes: PModeSet, config: Config,
) -> list[Check]:  # fmt: skip
    try:
        store = await open_store()
    except (GatewayError, OSError) as error:
        fix = getattr(error, "hint", "") or "check [store] dsn, and that the server runs"
        return [Check("store", "fail", str(error), fix)]
    more: list[Check] = []
    try:
        health = await store.health()
        if load_bundle is not None and not health.migrations_pending:
            more = [*await _revisions(store, load_bundle), *await _ring(store)]
            more += await _consumers(store, routes(pmodes), config)
            more += await certificate_checks(store, pmodes, config)
    except GatewayError as error:
        return [Check("store", "fail", str(error), "see the log of the database server")]
    finally:
        await store.close()
    checks = [Check("store", "ok" if health.writable else "fail", f"PostgreSQL {health.version}",
                    "" if health.writable else "connect to the primary")]  # fmt: skip
    if health.migrations_pending:
        text = f"{health.migrations_pending} pending"
        checks.append(Check("migrations", "warn", text, "they run when the gateway starts"))
    if health.synchronous_commit not in ("on", "remote_apply"):
        checks.append(Check("durability", "fail", f"synchronous_commit is {health.synchronous_commit}",
                            "set it to on: a receipt promises that the message is kept"))  # fmt: skip
    return [*checks, *more]


async def _revisions(store: Store, load_bundle: Callable[[], Bundle]) -> list[Check]:
    """Files against the database, and the processes against one another."""
    active = await store.active_agreements()
    if active is None:
        return [Check("revision", "ok", "none yet: the files become the first when the gateway starts")]
    checks = []
    behind = [p for p in await store.processes() if p.alive and (p.trouble or p.revision != active.number)]
    for process in behind:
        why = process.trouble or f"revision {active.number} is active"
        checks.append(Check(f"revision {process.node} {process.place}", "fail",
                            f"serves revision {process.revision}: {why}",
                            "mend what it says; it tries again by itself"))  # fmt: skip
    try:
        difference = await agreements.drift(store, load_bundle())
    except GatewayError as error:
        difference = f"the files cannot be read: {error}"
    if difference is None:
        checks.append(Check("revision", "ok", f"revision {active.number}, as in the files"))
    else:
        checks.append(Check("revision", "warn", difference,
                            "`gateway pmodes plan` shows how they differ, `apply` puts them in force, "
                            f"`show --revision {active.number} --to FOLDER` writes those that are"))  # fmt: skip
    return checks


async def _ring(store: Store) -> list[Check]:
    """The processes against the ring of our own keys, and against one another."""
    active, alive = await store.active_ring(), [p for p in await store.processes() if p.alive]
    checks = []
    for process in alive if active is not None else ():
        if process.ring_trouble or process.ring != active.number:
            why = process.ring_trouble or f"ring {active.number} is active"
            checks.append(Check(f"keys {process.node} {process.place}", "fail", f"has ring {process.ring}: {why}",
                                "mend what it says; it tries again by itself"))  # fmt: skip
    names = sorted({process.kek for process in alive if process.kek})
    if len(names) > 1:
        checks.append(Check("key-encryption key", "warn", f"processes seal with different ones: {', '.join(names)}",
                            "give every node the same keys.key_encryption_key"))  # fmt: skip
    if active is not None and not checks:
        checks.append(Check("keys in the database", "ok", f"ring {active.number}"))
    return checks


def _ports(config: Config) -> list[Check]:
    checks = []
    for name, listener in (("as4", config.as4), ("plugin", config.plugin), ("operations", config.operations)):
        host, port = split_bind(listener.bind)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                checks.append(Check(f"port {name}", "warn", f"{listener.bind}: {error.strerror}",
                                    f"fine if the gateway is running; else set [{name}] bind"))  # fmt: skip
                continue
        checks.append(Check(f"port {name}", "ok", f"{listener.bind} is free"))
    return checks


def split_bind(bind: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8443` or `[::]:8443`."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means


def _folder(folder: Path) -> Check:
    place = folder if folder.exists() else folder.parent
    try:
        stat = place.stat()
        import shutil

        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check("data folder", "fail", f"{folder}: {error.strerror}", "set [data] folder")
    if folder.exists() and stat.st_mode & 0o066:
        return Check("data folder", "warn", f"{folder} can be read by others", f"chmod 700 {folder}")
    if free < 1 << 30:
        return Check("data folder", "warn", f"{folder}: {free >> 20} MiB free", "make room")
    return Check("data folder", "ok", f"{folder}: {free >> 30} GiB free")


async def _reach(pmodes: PModeSet) -> list[Check]:
    """DNS, TCP and TLS of every partner's endpoint."""
    partners = [p for p in pmodes.parties if not pmodes.is_self(p.party_id) and p.endpoint]
    return list(await asyncio.gather(*(_reach_one(p.name, p.endpoint, p.tls_ca) for p in partners)))


async def _reach_one(name: str, endpoint: str, ca: bytes | None) -> Check:
    url = urlsplit(endpoint)
    port = url.port or (443 if url.scheme == "https" else 80)
    context = None
    if url.scheme == "https":
        context = ssl.create_default_context()
        if ca:
            context.load_verify_locations(cadata=ca if ca.startswith(b"0") else ca.decode())
    label = f"reach {name}"
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
    except socket.gaierror:
        return Check(label, "warn", f"{url.hostname} has no address", "check the endpoint and the DNS")
    except ssl.SSLCertVerificationError as error:
        fix = "check the partner's server certificate, or set tls_ca"
        return Check(label, "warn", f"TLS: {error.verify_message}", fix)
    except (OSError, TimeoutError) as error:
        return Check(label, "warn", f"{url.hostname}:{port}: {error or 'no answer'}", "check firewall and endpoint")
    writer.close()
    return Check(label, "ok", f"{url.hostname}:{port} answers")
