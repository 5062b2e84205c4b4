"""Adding and removing a partner: a plan for the agreement files first, then the files, whole or not at all.

Nothing here changes what is in force: `gateway pmodes apply` does. What a plan would make of the files is
loaded and linted before anybody is asked.
"""

import contextlib
import difflib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from msgspec import Struct

from gateway.config import Config
from gateway.config.strict import suggestion
from gateway.errors import CertificateRefused, ConfigError, NotFound, StalePlan
from gateway.keys.formats import certificates, truststore
from gateway.operate.domibus import safe_stem
from gateway.operate.lint import findings
from gateway.operate.parties import pem
from gateway.pmodes.bundle import Bundle, Folder
from gateway.pmodes.edit import with_party, without_party
from gateway.pmodes.lint import Finding
from gateway.pmodes.toml import expanded

MAX_CERTIFICATE_FILE = 64 << 10


class NewParty(Struct, frozen=True, kw_only=True):
    """A partner as it is told on the command line. Certificates are octets of files: PEM, DER, PKCS#7."""

    name: str
    endpoint: str | None = None
    id: str | None = None
    type: str | None = None
    certificate: bytes | None = None
    signing: bytes | None = None
    encryption: bytes | None = None
    next: bytes | None = None
    tls_ca: bytes | None = None


class Write(Struct, frozen=True):
    """One file to be written. `before` is what it holds now; None: it is new."""

    path: Path
    before: bytes | None
    after: bytes


class Plan(Struct, frozen=True):
    """What would be written, and what lint says of the party then."""

    party: str
    writes: tuple[Write, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def diff(self) -> str:
        """The changes to texts as a unified diff; new certificates are named only."""
        out = []
        for write in self.writes:
            if write.before is None:
                out.append(f"new file {write.path}")
                continue
            before, after = write.before.decode().splitlines(), write.after.decode().splitlines()
            out += difflib.unified_diff(before, after, str(write.path), str(write.path), lineterm="", n=2)
        return "\n".join(out)


def plan_add(config: Config, new: NewParty, *, path: Path | None = None, file: str | None = None) -> Plan:
    """What adding a partner would write. `file` names the agreement file where there are several.

    Raises `ConfigError`: the agreements cannot be loaded as they are, or could not be any more.
    """
    folder = Folder(path or config.pmodes, config.certs, truststore)
    expanded(folder)
    name = _chosen(folder, file)
    text = folder.agreement(name)
    target = str(folder.path(name))
    if "network" in _tables(text):
        raise ConfigError(
            "is about a network, whose parties come with its P-Mode", file=target, key="network",
            hint="put partners of your own into an agreement file of their own (--file)",
        )  # fmt: skip
    if new.name in _tables(text).get("parties", {}):
        raise ConfigError(f"there is a party {new.name!r} already", file=target, key=f"parties.{new.name}",
                          hint="edit it there, or remove it first")  # fmt: skip
    table: dict[str, str] = {key: value for key in ("type", "id", "endpoint") if (value := getattr(new, key))}
    writes: list[Write] = []
    for key in ("certificate", "signing", "encryption", "next", "tls_ca"):
        if (octets := getattr(new, key)) is not None:
            write = _certificate_file(config, folder, new.name, key, octets)
            table[key] = write.path.name
            if write.before != write.after:
                writes.append(write)
    after = with_party(text.decode(), new.name, table, file=target)
    writes.insert(0, Write(folder.path(name), text, after.encode()))
    return _judged(config, folder, new.name, writes)


def plan_remove(config: Config, party: str, *, path: Path | None = None) -> Plan:
    """What removing a partner would write: every file that names it. Raises `NotFound`, `ConfigError`."""
    folder = Folder(path or config.pmodes, config.certs, truststore)
    pmodes = expanded(folder)
    names = {p.name for p in pmodes.parties} | {p.party_id.value for p in pmodes.parties}
    writes = []
    for name in folder.agreements:
        text = folder.agreement(name)
        tables = _tables(text) if not name.lower().endswith(".xml") else {}
        target = str(folder.path(name))
        ours = tables.get("self") == party
        named = party in tables.get("parties", {}) or ("network" in tables and party in names)
        if ours and named:
            raise ConfigError(f"{party} is our own party", file=target, key="self")
        if named:
            after = without_party(text.decode(), party, file=target)
            writes.append(Write(folder.path(name), text, after.encode()))
    if not writes:
        raise NotFound(f"there is no party {party!r}; {suggestion(party, sorted(names)[:1000])}")
    return _judged(config, folder, party, writes)


def carry_out(plan: Plan) -> None:
    """Write the files of a plan. Raises `StalePlan` when one is no longer as it was, `ConfigError`."""
    for write in plan.writes:
        try:
            now = write.path.read_bytes()
        except FileNotFoundError:
            now = None
        if now != write.before:
            raise StalePlan(f"{write.path} has changed meanwhile")
    # Certificates first: an agreement never names a file that is not there yet.
    for write in sorted(plan.writes, key=lambda write: write.before is not None):
        _write(write)


def _write(write: Write) -> None:
    path = write.path.resolve()
    mode = path.stat().st_mode & 0o777 if write.before is not None else 0o644
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(write.path)) from None
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(write.after)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(beside, mode)
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(write.path)) from None


def _judged(config: Config, folder: Folder, party: str, writes: list[Write]) -> Plan:
    """The plan, once what it would make of the files loads. Raises `ConfigError`."""
    bundle = folder.bundle()
    changed: Mapping[str, bytes] = {write.path.name: write.after for write in writes}
    after = Bundle(
        bundle.agreements, MappingProxyType({**bundle.files, **changed}), bundle.base, str(folder.path("x").parent)
    )
    expanded(after)
    about = [f for f in findings(config, after) if f.where.rpartition(": ")[2].startswith(f"parties.{party}")]
    return Plan(party, tuple(writes), tuple(about))


def _chosen(folder: Folder, file: str | None) -> str:
    """The agreement file that is meant. Raises `ConfigError`."""
    toml = [name for name in folder.agreements if name.endswith(".toml")]
    if file is not None:
        if Path(file).name not in toml:
            raise ConfigError(f"there is no agreement file {file}", key="--file", hint=suggestion(file, toml[:60]))
        return Path(file).name
    if len(toml) == 1:
        return toml[0]
    place = str(folder.path(""))
    if not toml:
        raise ConfigError("there is no agreement file yet", file=place,
                          hint="copy pmodes/examples/oots.toml there and change `self`")  # fmt: skip
    raise ConfigError("there are several agreement files", file=place, key="--file",
                      hint="say which: " + ", ".join(toml[:20]))  # fmt: skip


def _certificate_file(config: Config, folder: Folder, party: str, key: str, octets: bytes) -> Write:
    """A file in the certs folder with the one certificate (of `tls_ca`: all) in `octets`. Raises `ConfigError`."""
    try:
        found = certificates(octets)
    except CertificateRefused as error:
        raise ConfigError(str(error), key=f"--{key}".replace("_", "-")) from None
    if key != "tls_ca":
        issuers = {c.issuer for c in map(x509.load_der_x509_certificate, found) if c.issuer != c.subject}
        leaves = [der for der in found if x509.load_der_x509_certificate(der).subject not in issuers]
        if len(leaves) != 1 and len(found) != 1:
            raise ConfigError(f"holds {len(found)} certificates", key=f"--{key}", hint="give that of the party alone")
        found = leaves or found
    stem = safe_stem(party) + ("" if key == "certificate" else f"-{key.replace('_', '-')}")
    after = "".join(pem(der) for der in found).encode()
    path = config.certs / f"{stem}.pem"
    before = path.read_bytes() if path.is_file() else None
    if before not in (None, after):
        raise ConfigError("is there already, with another content", file=str(path),
                          hint="move it away, or name another certificate in the agreement by hand")  # fmt: skip
    return Write(path, before, after)


def _tables(text: bytes) -> dict:
    return tomllib.loads(text.decode())
