"""What a profile is: the security suite and the rules all its agreements share.

A profile is data. The algorithms it names are rows of `wss/algorithms.py`; anything
not named by the profile of a leg is refused with EBMS:0103, whatever the code could do.
"""

from typing import Literal

from msgspec import Struct

from gateway.as4 import ns


class Profile(Struct, frozen=True, kw_only=True):
    """One eDelivery profile. `send_*` is what we write, `accept_*` what we take."""

    name: str
    send_signature: str
    accept_signature: frozenset[str]
    accept_digest: frozenset[str] = frozenset({ns.SHA256})
    send_encryption: str = ns.AES128_GCM
    accept_encryption: frozenset[str] = frozenset({ns.AES128_GCM})
    key_protection: Literal["key-transport", "key-agreement"]
    #: xmlenc11 rsa-oaep as (digest URI, MGF URI) pairs; key agreement methods as URIs.
    accept_oaep: frozenset[tuple[str, str]] = frozenset()
    accept_agreement: frozenset[str] = frozenset()
    #: Curve URNs of ECDSA and ECDH-ES keys; unused by the other algorithms.
    accept_curves: frozenset[str] = frozenset()
    four_corner: bool = True
    #: Whose rules for header and leading document are judged as advice; None: nobody has any.
    rules: Literal["oots"] | None = None
    #: Uncompressed XML parts are canonicalised for their digest; above this they are refused.
    max_canonical_part: int = 8 << 20
