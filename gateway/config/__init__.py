"""What an operator may set: `gateway.toml` as frozen Structs, read strictly.

`sections` says what there is, `strict` how TOML becomes Structs (also for agreements in
`gateway.pmodes`), `reference` writes docs/configuration.md from the Structs.
"""

from gateway.config.sections import (
    As4,
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
    Store,
    Tls,
    Traces,
    Trust,
    Workers,
)
from gateway.config.strict import Dsn, Duration, Secret, Size

__all__ = [
    "As4",
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
    "Secret",
    "Size",
    "Store",
    "Tls",
    "Traces",
    "Trust",
    "Workers",
]
