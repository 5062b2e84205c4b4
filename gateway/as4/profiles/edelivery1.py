"""eDelivery AS4 1.15: RSA signatures, RSA-OAEP key transport [as4 0.1, 3.8].

MGF1 and the digest are SHA-256, both; the profile lets an access point take other OAEP
settings of XML Encryption 1.1 and older peers used SHA-1, but nobody has to, and we do not.
"""

from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.profiles.profile import Profile

FOUR_CORNER = Profile(
    name="edelivery-as4/1.15",
    send_signature=ns.RSA_SHA256,
    accept_signature=frozenset({ns.RSA_SHA256}),
    key_protection="key-transport",
    accept_oaep=frozenset({(ns.SHA256, ns.MGF1_SHA256)}),
)

TWO_CORNER = replace(FOUR_CORNER, name="edelivery-as4/1.15-two-corner", four_corner=False)
