"""Who talks to whom: one site for each suite, with a party and keys on our side and on phase4's.

A site is an agreement on our side and an endpoint `/as4/<site>` on theirs. Keys are made when
the suite runs and are gone with its folder.
"""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.keys.development import PartyFiles, make_development

TYPE = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:interop"
SERVICE, SERVICE_TYPE = "documents", "urn:interop:services"
AGREEMENT, AGREEMENT_TYPE = "interop-2026", "urn:interop:agreements"
ROLE = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
INITIATOR, RESPONDER = f"{ROLE}initiator", f"{ROLE}responder"
#: Every way of naming a certificate that we can write.
TOKENS = ("bst", "pkipath", "ski", "issuer-serial", "thumbprint", "x509")


@dataclass(frozen=True)
class Site:
    """`profile` is ours, `peer_profile` the name of the same in the peer."""

    name: str
    title: str
    profile: str
    peer_profile: str
    keys: Literal["rsa", "eddsa", "ecdsa"]
    rsa_bits: int = 2048

    @property
    def us(self) -> str:
        return f"gw-{self.name}"

    @property
    def peer(self) -> str:
        return f"p4-{self.name}"


RSA2048 = Site("rsa2048", "1.15 RSA-2048", "edelivery-as4/1.15", "edelivery1", "rsa")
RSA3072 = Site("rsa3072", "1.15 RSA-3072", "edelivery-as4/1.15", "edelivery1", "rsa", 3072)
EDDSA = Site("eddsa", "2.0 EdDSA", "edelivery-as4/2.0", "edelivery2-eddsa", "eddsa")
ECDSA = Site("ecdsa", "2.0 ECDSA", "edelivery-as4/2.0-ecdsa", "edelivery2-ecdsa", "ecdsa")
SUITES = (RSA2048, RSA3072, EDDSA, ECDSA)
#: The same suites once more, for what would disturb the others: faults, and TLS.
FAULTS = Site("faults", "1.15 RSA-2048", "edelivery-as4/1.15", "edelivery1", "rsa")
TLS = Site("tls", "1.15 RSA-2048", "edelivery-as4/1.15", "edelivery1", "rsa")
TLS20 = Site("tls20", "2.0 EdDSA", "edelivery-as4/2.0", "edelivery2-eddsa", "eddsa")

_ACTIONS = (
    "Exchange", "Agreed", "Refused", *(f"sign-{token}" for token in TOKENS), *(f"encrypt-{token}" for token in TOKENS),
)  # fmt: skip

_AGREEMENT = """
profile = "{profile}"
self = "{us}"
allow_http = true
retry = {retry}

[parties.{us}]
type = "{type}"

[parties.{peer}]
type = "{type}"
endpoint = "{endpoint}"
signing = "{name}-sign.pem"
encryption = "{name}-encrypt.pem"
{more}
"""

_EXCHANGE = """
[[exchanges]]
service = "{service}"
service_type = "{service_type}"
action = "{action}"
from_role = "{initiator}"
to_role = "{responder}"
properties = ["originalSender", "finalRecipient"]
{more}
"""

#: Tries again soon, and gives up soon enough for a test to see it.
RETRY = '{ first = "0.3s", factor = 1.0, max = "0.3s", count = 20, window = "90s", jitter = 0.0 }'


def make_keys(site: Site, folder: Path) -> tuple[PartyFiles, PartyFiles]:
    """Keys and certificates of both sides, issued by a CA of the site's own: (ours, phase4's)."""
    made = make_development(
        folder / site.name, [site.us, site.peer], now=datetime.datetime.now(datetime.UTC), suites=[site.keys],
        rsa_bits=site.rsa_bits,
    )  # fmt: skip
    return made.parties


def agreement(site: Site, endpoint: str, *, retry: str = RETRY, more: str = "") -> str:
    """The text of our agreement file; `more` goes to the table of the peer."""
    text = _AGREEMENT.format(profile=site.profile, us=site.us, peer=site.peer, name=site.name, type=TYPE,
                             endpoint=endpoint, retry=retry, more=more)  # fmt: skip
    for action in _ACTIONS:
        kind, _, token = action.partition("-")
        extra = {
            "sign": f'signature_token = "{token}"',
            "encrypt": f'encryption_token = "{token}"',
            "Agreed": f'agreement = {{ value = "{AGREEMENT}", type = "{AGREEMENT_TYPE}" }}',
        }.get(kind, "")
        text += _EXCHANGE.format(service=SERVICE, service_type=SERVICE_TYPE, action=action, initiator=INITIATOR,
                                 responder=RESPONDER, more=extra)  # fmt: skip
    return text


def peer_configuration(sites: dict[Site, tuple[PartyFiles, PartyFiles]], *, tls: tuple[Path, Path] | None) -> str:
    """The peer's configuration. It has never heard of the action `Refused`."""
    config = {"out": "inbox", "sites": [
        {"name": site.name, "profile": site.peer_profile, "party": site.peer, "partner": site.us,
         "keys": str(theirs.keys), "partnerSigning": str(ours.signing), "partnerEncryption": str(ours.encryption),
         "actions": [action for action in _ACTIONS if action != "Refused"]}
        for site, (ours, theirs) in sites.items()
    ]}  # fmt: skip
    if tls:
        config["tls"] = {"keys": str(tls[0]), "ca": str(tls[1])}
    return json.dumps(config)
