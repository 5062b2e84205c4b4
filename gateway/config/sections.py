"""The sections of `gateway.toml`. Every field is described in the docstring of its Struct.

The descriptions are for operators: docs/configuration.md is made from them, and a test
fails when a field has none. Defaults are such that a minimal file is a few lines.
"""

import contextlib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.config.places import Places
from gateway.config.strict import (
    MAX_FILE,
    Dsn,
    Duration,
    Secret,
    Size,
    build,
    read_toml,
    shape_of,
    suggestion,
    value_of,
)
from gateway.errors import ConfigError

PREFIX = "GATEWAY__"

#: Suites for TLS 1.2: forward secrecy and AEAD only [as4 1.6]. TLS 1.3 has its own, all of them good.
TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES256-CCM"


def _between(value: int, least: int, most: int, name: str) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}")


def _bind(text: str) -> None:
    """Refuse what is not `host:port`, `:port` or `[v6]:port`."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*):(\d{1,5})", text)
    if not match or int(match[2]) > 65_535:
        raise ValueError('bind: expected ADDRESS:PORT such as "127.0.0.1:8443" or "[::]:8443"')


class Node(Struct, frozen=True):
    """Which node this is.

    name: Name of the node in logs, metrics and attempts. Default: the host name.
    host: Right-hand side of the MessageIds this node makes. Default: the host of `as4.public_url`, else the name.
    """

    name: str = ""
    host: str = ""


class Data(Struct, frozen=True):
    """Where the node keeps files of its own.

    folder: Spool, and the private PostgreSQL where `store.dsn` is not set. Made with mode 0700.
    """

    folder: Path = Path("data")


class Store(Struct, frozen=True):
    """The message store.

    dsn: PostgreSQL to use: `postgresql://user@host/database` without a password, or `file:`, `env:` or `credential:`
        for the whole text. Without it the node runs a private PostgreSQL in the data folder.
    pool_size: Connections a worker process holds at most.
    synchronous: Whether a commit has to be kept by a second server before a receipt is sent. `any`: as the server is
        configured. `preferred`: without a synchronous standby the node works on and says that it is degraded.
        `required`: without one it is not ready and sends no receipts.
    """

    dsn: Dsn | None = None
    pool_size: int = 8
    synchronous: Literal["any", "preferred", "required"] = "any"

    def __post_init__(self) -> None:
        _between(self.pool_size, 2, 200, "pool_size")
        if self.synchronous != "any" and self.dsn is None:
            raise ValueError("synchronous: a private PostgreSQL has no standby; set dsn")


class Pair(Struct, frozen=True):
    """How the nodes that share a database (`store.dsn`) share the work. See docs/operators/ha.md.

    roles: `active/passive`: one node works, the others wait to take over, and /readyz says which it is.
        `active/active`: every node works. The same on every node.
    """

    roles: Literal["active/passive", "active/active"] = "active/passive"


class Tls(Struct, frozen=True):
    """TLS of a listener. Without this table the listener speaks plain HTTP, for a proxy in front of it.

    certificate: PEM file with the server certificate and its chain. Default, for the AS4 listener: the `tls-server`
        key that is active in the database, which also goes before a file; see `gateway certs`.
    key: PEM file with the private key. Default: it stands in `certificate`.
    password: Reference to the password of the private key.
    client_ca: PEM file with the CAs whose client certificates are asked for.
    require_client_certificate: Refuse clients without a certificate from `client_ca`.
    minimum_version: Oldest TLS version spoken.
    ciphers: OpenSSL cipher list for TLS 1.2.
    """

    certificate: Path | None = None
    key: Path | None = None
    password: Secret | None = None
    client_ca: Path | None = None
    require_client_certificate: bool = False
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str = TLS12_CIPHERS

    def __post_init__(self) -> None:
        if self.require_client_certificate and self.client_ca is None:
            raise ValueError("require_client_certificate needs client_ca")
        if self.key is not None and self.certificate is None:
            raise ValueError("key: belongs to a certificate, which is missing")


class ClientTls(Struct, frozen=True):
    """TLS of connections to partners. Theirs is always verified, by `tls_ca` of the party or the CAs of the system.

    certificate: PEM file with the certificate shown to partners that ask for one, and its chain. The `tls-client`
        key that is active in the database goes before it.
    key: PEM file with its private key. Default: it stands in `certificate`.
    password: Reference to the password of the private key.
    minimum_version: Oldest TLS version spoken.
    ciphers: OpenSSL cipher list for TLS 1.2.
    """

    certificate: Path | None = None
    key: Path | None = None
    password: Secret | None = None
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str = TLS12_CIPHERS

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("key: belongs to a certificate, which is missing")


class As4(Struct, frozen=True):
    """The AS4 listener: where partners send to.

    bind: Address and port.
    tls: TLS of the listener; without it plain HTTP.
    paths: Paths that take AS4 messages. The later ones are what Domibus and Harmony answer on.
    public_url: The URL partners know, for checks and for MessageIds.
    client_tls: TLS of connections to partners.
    """

    bind: str = "127.0.0.1:8443"
    tls: Tls | None = None
    paths: tuple[str, ...] = ("/as4", "/services/msh", "/domibus/services/msh")
    public_url: str | None = None
    client_tls: ClientTls = ClientTls()

    def __post_init__(self) -> None:
        _bind(self.bind)
        for path in self.paths:
            if not re.fullmatch(r"/[^\s?#]*", path):
                raise ValueError(f"paths: {path!r} is not a path; it starts with / and has no blank, ? or #")
        if not self.paths:
            raise ValueError("paths: at least one is needed")
        if self.public_url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.public_url):
            raise ValueError("public_url: expected https://host/path")


class Issuer(Struct, frozen=True):
    """An OAuth2 server whose access tokens (JWT) are believed. Who a token speaks for becomes a client by
    `gateway backends token CLIENT --subject ISSUER SUBJECT`.

    issuer: Its name, as it stands in `iss`.
    audience: Our name there; it has to stand in `aud`.
    jwks_url: Where it publishes its keys (`jwks_uri`). Fetched under the egress policy; https, or http in
        `egress.allow_networks`.
    jwks_file: File with its keys instead, a JWK Set.
    ca: PEM file with the CA of `jwks_url`. Default: those of the system.
    algorithms: Algorithms it may sign with.
    subject: Claim that says who the token speaks for.
    leeway: How far its clock may differ from ours.
    max_lifetime: Tokens that are valid for longer are refused.
    refresh: How long its keys are used without asking again.
    stale: How long they go on being used while it does not answer.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    ca: Path | None = None
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    subject: Literal["sub", "azp", "client_id"] = "sub"
    leeway: Duration = Duration(30)
    max_lifetime: Duration = Duration(7200)
    refresh: Duration = Duration(300)
    stale: Duration = Duration(3600)

    def __post_init__(self) -> None:
        for name in ("issuer", "audience"):
            text = getattr(self, name)
            if not 0 < len(text) <= 500 or " " in text or not text.isprintable():
                raise ValueError(f"{name}: expected 1 to 500 printable characters and no blank")
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("jwks_url: exactly one of jwks_url and jwks_file is needed")
        if self.jwks_url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.jwks_url):
            raise ValueError("jwks_url: expected https://host/path")
        if not self.algorithms:
            raise ValueError("algorithms: at least one is needed")
        for name, most in (("leeway", 300), ("max_lifetime", 86_400), ("refresh", 86_400), ("stale", 7 * 86_400)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected at most {most} seconds")
        if self.stale < self.refresh:
            raise ValueError("stale: may not be shorter than refresh")


class Listener(Struct, frozen=True):
    """The plugin API: where backends submit and fetch messages.

    bind: Address and port.
    tls: TLS of the listener; without it plain HTTP. Clients show a certificate if it has a `client_ca`.
    issuers: OAuth2 servers whose access tokens are believed, one table each.
    """

    bind: str = "127.0.0.1:8080"
    tls: Tls | None = None
    issuers: tuple[Issuer, ...] = ()

    def __post_init__(self) -> None:
        _bind(self.bind)
        if self.tls is not None and self.tls.certificate is None:
            raise ValueError("tls.certificate: is needed here; keys in the database are for the AS4 listener")
        if len({issuer.issuer for issuer in self.issuers}) < len(self.issuers):
            raise ValueError("issuers: one of them is there twice")


class Operations(Struct, frozen=True):
    """Health and metrics: /livez, /readyz, /metrics.

    bind: Address and port. Not for the internet.
    """

    bind: str = "127.0.0.1:9090"

    def __post_init__(self) -> None:
        _bind(self.bind)


class Workers(Struct, frozen=True):
    """Processes and what runs in each.

    processes: Worker processes; 0 means one for each core.
    claimers: Messages to one partner, or deliveries to one backend, that a process works on at once.
    sends: Messages to all partners together that a process sends at once.
    threads: Threads of a process for payloads above 256 KiB.
    deaths: Processes that may die in a row at work on one message; after that it waits for an operator.
    """

    processes: int = 0
    claimers: int = 4
    sends: int = 32
    threads: int = 2
    deaths: int = 3

    def __post_init__(self) -> None:
        _between(self.processes, 0, 256, "processes")
        _between(self.claimers, 1, 256, "claimers")
        _between(self.sends, 1, 1024, "sends")
        _between(self.threads, 1, 64, "threads")
        _between(self.deaths, 2, 1000, "deaths")


class KeyStore(Struct, frozen=True):
    """A file with private keys of our own: PEM, PKCS#12 or JKS, told apart by its content.

    path: The file.
    password: Reference to its password.
    key_password: Reference to the password of the keys in it where that differs (JKS).
    certificate: PEM or DER file with the certificates where `path` has the key only.
    party: Party id whose keys these are. Default: any party of ours.
    alias: Take this entry only (upper and lower case are the same). Default: every private key.
    uses: What the keys are used for. `["decrypt"]` keeps an old key for messages still under way.
    """

    path: Path
    password: Secret | None = None
    key_password: Secret | None = None
    certificate: Path | None = None
    party: str | None = None
    alias: str | None = None
    uses: tuple[Literal["sign", "decrypt"], ...] = ("sign", "decrypt")

    def __post_init__(self) -> None:
        if not self.uses:
            raise ValueError('uses: at least one of "sign", "decrypt"')


class Token(Struct, frozen=True):
    """A PKCS#11 token that keeps private keys. A key in it is named `pkcs11:token=LABEL;object=LABEL`.

    token: Label of the token.
    module: The PKCS#11 library of its vendor.
    pin: Reference to the PIN of its user.
    """

    token: str
    module: Path
    pin: Secret


class Keys(Struct, frozen=True):
    """Keys of this node.

    key_encryption_key: Reference to the 32 octets (raw, hexadecimal or base64) that seal payloads and secrets in the
        database. Must be the same on every node of a pair. Default: `key-encryption-key` in the data folder, made at
        the first start; with `store.dsn` it has to be given.
    previous_key_encryption_keys: References to older ones, still needed to open what they sealed.
    store: Private keys, one table a file. The first that fits an agreement's profile signs; all of them decrypt.
        Keys in the database go first (`gateway certs`): a file signs only where there is no active key of its kind.
    tokens: PKCS#11 tokens that keys of the database may be in, one table each; the same on every node of a pair. Needs
        the extra `pkcs11`.
    """

    key_encryption_key: Secret | None = None
    previous_key_encryption_keys: tuple[Secret, ...] = ()
    store: tuple[KeyStore, ...] = ()
    tokens: tuple[Token, ...] = ()

    def __post_init__(self) -> None:
        if len({token.token for token in self.tokens}) < len(self.tokens):
            raise ValueError("tokens: one label is there twice")


class Trust(Struct, frozen=True):
    """How strictly certificates of partners are judged. The defaults are right for production.

    self_signed_ca: Accept a pinned self-signed certificate that calls itself a CA, as OpenSSL makes them by default.
    key_usage: Demand that the certificate's key usage fits what it is used for.
    sha1_signatures: Accept certificates whose issuer signed with SHA-1.
    """

    self_signed_ca: bool = False
    key_usage: bool = True
    sha1_signatures: bool = False


Policy = Literal["hard", "soft", "off"]


class Revocation(Struct, frozen=True, kw_only=True):
    """Whether the issuer of a partner's certificate has revoked it: asked by OCSP, then by CRL, where it names them.

    `hard`: without an answer the certificate is refused. `soft`: it is accepted for `grace`, with a warning, and
    refused then; one that names nobody to ask is accepted. `off`: nobody is asked. What is revoked is refused by
    both; so is what the issuer does not know. An agreement may say otherwise for a party (`revocation`) or a rule of
    trust (`trust.revocation`). Whoever is asked is reached at public addresses, or in `egress.allow_networks`.

    paths: For certificates that are trusted by path.
    pinned: For certificates that agreements pin. Their issuers must be known: by `issuers`, or by the party's `trust`.
    issuers: PEM file with CAs that issue pinned certificates.
    timeout: Time for one answer.
    deadline: Time for all questions about one message; who has not answered by then has not answered.
    refresh: How long an answer is used without asking again; never longer than it says itself.
    retry: How long after a failure somebody is asked again.
    grace: How long `soft` goes on without an answer.
    max_crl: Largest list that is taken.
    """

    paths: Policy = "soft"
    pinned: Policy = "off"
    issuers: Path | None = None
    timeout: Duration = Duration(5)
    deadline: Duration = Duration(10)
    refresh: Duration = Duration(3600)
    retry: Duration = Duration(60)
    grace: Duration = Duration(86_400)
    max_crl: Size = Size(20 << 20)

    def __post_init__(self) -> None:
        for name, most in (("timeout", 60), ("deadline", 120), ("refresh", 86_400), ("retry", 3600)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name}: expected a positive time of at most {most} seconds")
        if not 0 <= self.grace <= 30 * 86_400:
            raise ValueError("grace: expected at most 30 days")
        _between(self.max_crl, 1 << 10, 100 << 20, "max_crl")


class Limits(Struct, frozen=True):
    """What one message or one partner may take. An agreement may lower those of messages.

    envelope: SOAP part of a message.
    parts: Payload parts of a message.
    part: One part, as sent.
    message: A whole message, as sent.
    decompressed: One part after decompression.
    uploads: Messages taken in at once by one worker process; beyond that peers get 503 and come again.
    uploads_per_partner: The same for one partner.
    header_deadline: Time for the headers of a request.
    body_deadline: Time for the body of a request.
    body_rate: Octets a second a body must make on average, after ten seconds.
    """

    envelope: Size = Size(1 << 20)
    parts: int = 64
    part: Size = Size(200 << 20)
    message: Size = Size(1 << 30)
    decompressed: Size = Size(1 << 30)
    uploads: int = 64
    uploads_per_partner: int = 16
    header_deadline: Duration = Duration(10)
    body_deadline: Duration = Duration(600)
    body_rate: Size = Size(8 << 10)

    def __post_init__(self) -> None:
        # 16 MiB is what a SOAP part with the largest imaginable header could need; parsing costs memory times ten.
        _between(self.envelope, 1 << 10, 16 << 20, "envelope")
        _between(self.parts, 1, 1000, "parts")
        _between(self.uploads, 1, 10_000, "uploads")
        _between(self.uploads_per_partner, 1, 10_000, "uploads_per_partner")
        if self.part > self.message:
            raise ValueError("part: may not be larger than message")


class Circuit(Struct, frozen=True):
    """Partners that do not answer: their messages wait without an attempt, and one at a time tries, for all processes.

    failures: Attempts in a row that were not answered, after which a partner is left alone.
    first: For how long, about. A partner that fails over to another node is back in so many seconds.
    longest: The time doubles with every further failure, up to this.
    """

    failures: int = 5
    first: Duration = Duration(5)
    longest: Duration = Duration(300)

    def __post_init__(self) -> None:
        _between(self.failures, 1, 1000, "failures")
        if not 0 < self.first <= self.longest <= 86_400:
            raise ValueError("first: expected a positive time, not longer than `longest`, which is at most a day")


class Retention(Struct, frozen=True):
    """How long things are kept. What is held legally (`gateway messages legal-hold`) is kept until it is let go.

    delivered_payloads: Payloads of received messages, after the backend has acknowledged them. Erased within a minute
        of it: nothing else is allowed by Article 14 of the Single Digital Gateway Regulation.
    sent_payloads: Payloads of sent messages, after the receipt or the final failure.
    messages: Headers, receipts, events and the knowledge of ids, after the exchange has ended; 12 months by Article
        17 of Implementing Regulation (EU) 2022/1463. An id that is forgotten would be taken for a new message.
    """

    delivered_payloads: Duration = Duration(0)
    sent_payloads: Duration = Duration(216_000)  # 3600 minutes, as the OOTS network file has it
    messages: Duration = Duration(365 * 86_400)

    def __post_init__(self) -> None:
        if self.messages < max(self.delivered_payloads, self.sent_payloads):
            raise ValueError("messages: may not be shorter than payloads are kept")


class Traces(Struct, frozen=True):
    """OpenTelemetry, with the extra `[otel]` installed. What the environment says (`OTEL_TRACES_SAMPLER` …) holds.

    endpoint: Where spans go, OTLP over HTTP: `http://collector:4318/v1/traces`. Without it there are none.
    """

    endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint is not None and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", self.endpoint):
            raise ValueError("endpoint: expected http://host:port/v1/traces, without a password")


class Rotation(Struct, frozen=True):
    """What happens when a partner refuses messages for the certificate of ours that signed them.

    refusals: After so many errors of that kind, and no receipt since the first, the partner goes back to the
        certificate before, if that is still valid. 0: never by itself.
    within: The errors came within this time.
    believe_tls: An unsigned error counts, too, when it came over TLS from a server that was verified. Products commonly
        leave the error unsigned. Over plain HTTP it never counts: anybody on the way could say it.
    """

    refusals: int = 3
    within: Duration = Duration(600)
    believe_tls: bool = True

    def __post_init__(self) -> None:
        _between(self.refusals, 0, 1000, "refusals")


class Egress(Struct, frozen=True):
    """Where this node may connect to. Public addresses are always allowed.

    allow_networks: Private, loopback or link-local networks that webhooks, publishers of metadata and discovered
        partners may live in, as CIDR.
    """

    allow_networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for network in self.allow_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"allow_networks: {error}") from None


class Discovery(Struct, frozen=True):
    """Looking up partners that no agreement names. Which are looked up, and whom to believe, the agreements say.

    dns_servers: DNS servers that are asked, as ADDRESS or ADDRESS:PORT. Default: those of the system.
    dns_timeout: Time for one question to DNS.
    smp_timeout: Time for one answer of a publisher of service metadata.
    timeout: Time for one look-up as a whole. A submission waits as long.
    ttl: How long what was found is used without asking again.
    negative_ttl: How long it is remembered that a participant does not exist or was refused.
    stale: How long what was found goes on being used while neither DNS nor the publisher answer.
    cache: Participants a worker process remembers.
    """

    dns_servers: tuple[str, ...] = ()
    dns_timeout: Duration = Duration(5)
    smp_timeout: Duration = Duration(10)
    timeout: Duration = Duration(30)
    ttl: Duration = Duration(3600)
    negative_ttl: Duration = Duration(60)
    stale: Duration = Duration(86_400)
    cache: int = 1000

    def __post_init__(self) -> None:
        _between(self.cache, 1, 100_000, "cache")
        for name in ("dns_timeout", "smp_timeout", "timeout"):
            if not 0 < getattr(self, name) <= 300:
                raise ValueError(f"{name}: expected a positive time of at most 5 minutes")


class Alerts(Struct, frozen=True):
    """Who is told when something needs an operator, such as certificates that come to their end: either `url` or
    `command`; see docs/operators/expiry.md. On a pair, set it on both nodes: each alert is told by one of them.

    url: URL that gets a CloudEvent by POST, under the egress policy of webhooks.
    secret: Reference to the secret that signs it as Standard Webhooks have it: `whsec_` or `whsk_`, then base64.
    command: Program and its arguments. Gets the same JSON on standard input; status 0 means that it was told.
    """

    url: str | None = None
    secret: Secret | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.url is not None and self.command:
            raise ValueError("url: either url or command, not both")
        if (self.url is None) != (self.secret is None):
            raise ValueError("secret: url and secret belong together; whoever is told must be able to tell who says it")
        if self.url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.url):
            raise ValueError("url: expected https://host/path")
        if self.command and not self.command[0].startswith("/"):
            raise ValueError("command: expected the program with its whole path")


class Audit(Struct, frozen=True):
    """The audit; docs/operators/audit.md.

    anchor_every: How often the head of the chain is signed, with our signing key, if anything was added. 0: never.
    """

    anchor_every: Duration = Duration(3600)

    def __post_init__(self) -> None:
        if self.anchor_every and self.anchor_every < 1:
            raise ValueError("anchor_every: expected 0 or at least a second")


class Log(Struct, frozen=True):
    """The log, on standard error.

    level: Least severe lines that are written.
    format: `json`, `pretty`, or `auto`: pretty on a terminal.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


class Config(Struct, frozen=True, kw_only=True):
    """`gateway.toml`. Relative paths start from the folder of the file.

    pmodes: Folder (or one file) with the agreements.
    certs: Folder where agreements find certificate files that do not stand beside them.
    backends: A table for each door that has options: `[backends.rest]`, `[backends.domibus_ws]`; see docs/backends.md.
    """

    pmodes: Path = Path("pmodes")
    certs: Path = Path("certs")
    node: Node = Node()
    data: Data = Data()
    store: Store = Store()
    pair: Pair = Pair()
    as4: As4 = As4()
    plugin: Listener = Listener()
    operations: Operations = Operations()
    workers: Workers = Workers()
    keys: Keys = Keys()
    trust: Trust = Trust()
    revocation: Revocation = Revocation()
    limits: Limits = Limits()
    circuit: Circuit = Circuit()
    retention: Retention = Retention()
    rotation: Rotation = Rotation()
    egress: Egress = Egress()
    discovery: Discovery = Discovery()
    alerts: Alerts = Alerts()
    audit: Audit = Audit()
    log: Log = Log()
    traces: Traces = Traces()
    backends: dict[str, dict[str, Any]] = {}

    @classmethod
    def load(cls, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Self:
        """The configuration in `path`, with `GATEWAY__SECTION__KEY` variables laid over it.

        Without a path there are defaults, relative to the working directory. Raises `ConfigError`.
        """
        base = path.absolute().parent if path else Path.cwd()
        raw = read_toml(path) if path else {}
        for name in sorted(environ):
            if name.startswith(PREFIX):
                _lay_over(raw, name, environ[name], base)
        try:
            config = build(raw, cls, file=str(path or ""), base=base)
        except ConfigError as error:
            raise _located(error, path) from None
        if config.store.dsn is not None and config.keys.key_encryption_key is None:
            raise ConfigError(
                "is missing", file=str(path or ""), key="keys.key_encryption_key",
                hint="every node that shares a database needs the same; `gateway run` makes one only for its own",
            )  # fmt: skip
        name = config.node.name or socket.gethostname() or "gateway"
        public = urlsplit(config.as4.public_url or "").hostname
        return msgspec.structs.replace(config, node=Node(name=name, host=config.node.host or public or name))


def _located(error: ConfigError, path: Path | None) -> ConfigError:
    """The error with the line of its key, where it is about the file and not about a variable laid over it."""
    if path is None or error.file != str(path):
        return error
    with contextlib.suppress(OSError):
        Places(path.read_bytes()[:MAX_FILE].decode(errors="replace")).locate(error)
    return error


def _lay_over(raw: dict[str, Any], variable: str, text: str, base: Path) -> None:
    """Put the value of one environment variable where it belongs in the tables of the file."""
    steps = variable.removeprefix(PREFIX).lower().split("__")
    type: Any = Config
    table = raw
    for depth, step in enumerate(steps):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(type)}
        if step not in fields:
            where = ".".join(steps[:depth]) or "the top"
            raise ConfigError(
                f"there is no {step!r} in {where}", file="environment", key=variable, hint=suggestion(step, fields)
            )
        shape, inner = shape_of(fields[step])
        if depth == len(steps) - 1:
            table[step] = _from_text(text, shape, fields[step], variable)
            # Judged here, too, so that the message names the variable and not a place in the file.
            value_of(table[step], fields[step], file="environment", base=base, key=variable)
            return
        if shape != "table":
            raise ConfigError("has no keys of its own", file="environment", key=variable)
        table, type = table.setdefault(step, {}), inner
        if not isinstance(table, dict):
            raise ConfigError("the file has something else than a table here", file="environment", key=variable)


def _from_text(text: str, shape: str, type: Any, variable: str) -> Any:
    """The value a variable stands for: a text where one is expected, else as TOML would have it."""
    if shape == "value" and not _wants_toml(type):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if "tuple" in str(type) and shape == "value":
            return [item.strip() for item in text.split(",") if item.strip()]
        raise ConfigError("cannot be read as a TOML value", file="environment", key=variable) from None


def _wants_toml(type: Any) -> bool:
    return type in (int, bool, float) or "tuple" in str(type)
