"""What an operator may set: `gateway.toml` as frozen Structs, read strictly.

`sections` says what there is, `strict` how TOML becomes Structs (also for agreements in
`gateway.pmodes`), `reference` writes docs/configuration.md from the Structs.
"""

from gateway.config.sections import (
    Alerts,
    As4,
    Audit,
    Config,
    Data,
    Discovery,
    Egress,
    Issuer,
    Keys,
    KeyStore,
    Limits,
    Listener,
    Log,
    Node,
    Operations,
    Retention,
    Revocation,
    Rotation,
    Store,
    Tls,
    Token,
    Traces,
    Trust,
    Workers,
)
from gateway.config.strict import Dsn, Duration, Secret, Size

__all__ = [
    "Alerts",
    "As4",
    "Audit",
    "Config",
    "Data",
    "Discovery",
    "Dsn",
    "Duration",
    "Egress",
    "Issuer",
    "KeyStore",
    "Keys",
    "Limits",
    "Listener",
    "Log",
    "Node",
    "Operations",
    "Retention",
    "Revocation",
    "Rotation",
    "Secret",
    "Size",
    "Store",
    "Tls",
    "Token",
    "Traces",
    "Trust",
    "Workers",
]
