"""eDelivery AS4 2.0: Ed25519 with X25519, and the Alternative Elliptic Curve option [as4 3.9, 3.10].

The option is a profile of its own: an agreement says which of the two suites it uses, and a
message of the other suite is refused.
"""

from msgspec.structs import replace

from gateway.as4 import ns
from gateway.as4.profiles.profile import Profile
from gateway.as4.wss.algorithms import BRAINPOOL_P256, P256, P384, P521

FOUR_CORNER = Profile(
    name="edelivery-as4/2.0",
    send_signature=ns.ED25519,
    accept_signature=frozenset({ns.ED25519}),
    key_protection="key-agreement",
    accept_agreement=frozenset({ns.X25519}),
)

TWO_CORNER = replace(FOUR_CORNER, name="edelivery-as4/2.0-two-corner", four_corner=False)

ECDSA_FOUR_CORNER = replace(
    FOUR_CORNER,
    name="edelivery-as4/2.0-ecdsa",
    send_signature=ns.ECDSA_SHA256,
    accept_signature=frozenset({ns.ECDSA_SHA256}),
    accept_agreement=frozenset({ns.ECDH_ES}),
    accept_curves=frozenset({P256, P384, P521, BRAINPOOL_P256}),
)

ECDSA_TWO_CORNER = replace(ECDSA_FOUR_CORNER, name="edelivery-as4/2.0-ecdsa-two-corner", four_corner=False)
