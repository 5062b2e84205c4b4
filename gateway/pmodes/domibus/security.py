"""What a `security` of a P-Mode file means here: a profile and a way to name certificates, or nothing usable.

A policy is a file name in Domibus; the names its releases ship are known, whatever their case.
A policy without encryption or without signature never becomes an agreement, used or not.
"""

from msgspec import Struct

from gateway.as4.pmode import TokenReference
from gateway.pmodes.domibus.read import Node, shown

#: The agreement profile of each Domibus profile name; None stands for no `profile` attribute.
PROFILES: dict[str | None, str] = {
    None: "edelivery-as4/1.15",
    "rsa": "edelivery-as4/1.15",
    "ecc": "edelivery-as4/2.0",
    "eddsa": "edelivery-as4/2.0",
    "ecdsa": "edelivery-as4/2.0-ecdsa",
}
#: How the alias of a certificate calls a profile (`ap_xx_01_rsa_sign`).
ALIAS_NAMES: dict[str, tuple[str, ...]] = {
    "edelivery-as4/1.15": ("rsa",),
    "edelivery-as4/2.0": ("ecc", "eddsa"),
    "edelivery-as4/2.0-ecdsa": ("ecc", "ecdsa"),
}
#: Policy file without its ending, in lower case, and how it names the signer's certificate.
POLICIES: dict[str, TokenReference] = {
    "edeliveryas4policy": "ski",
    "edeliveryas4policy_bst": "bst",
    "edeliveryas4policy_bst_pkip": "pkipath",
    "edeliveryas4policy_is": "issuer-serial",
}
UNUSABLE = {
    "signonly": "it does not encrypt",
    "donothingpolicy": "it neither signs nor encrypts",
    "edeliveryas4policyencryptbody": "it encrypts the SOAP body, which eDelivery AS4 does not",
    "edeliveryas4policynobodyencrypt": "it is a policy of Domibus' own tests",
}
#: What is written for a way of naming the certificate; every other way has no policy in Domibus.
WRITTEN: dict[str, str] = {
    "ski": "eDeliveryAS4Policy.xml",
    "bst": "eDeliveryAS4Policy_BST.xml",
    "pkipath": "eDeliveryAS4Policy_BST_PKIP.xml",
    "issuer-serial": "eDeliveryAS4Policy_IS.xml",
}


class Security(Struct, frozen=True):
    """What a security means. `fault` says why it cannot be used; `unknown` that nobody can tell."""

    profile: str = ""
    token: TokenReference = "bst"  # noqa: S105 - a kind of reference
    fault: str | None = None
    unknown: bool = False


def meaning(node: Node) -> Security:
    """The meaning of a `security` element."""
    name = node.get("profile")
    profile = PROFILES.get(name.lower() if name else None)
    if profile is None:
        return Security(fault=f"profile {shown(name or '')} is not known (known: rsa, ecc, ecdsa)", unknown=True)
    policy = node.get("policy")
    if policy is None:
        # 5.2: the profile alone is enough; OOTS and the common profile name the certificate by token.
        if name is None:
            return Security(fault="it has neither a policy nor a profile", unknown=True)
        return Security(profile)
    key = policy.lower().removesuffix(".xml")
    if key in UNUSABLE:
        return Security(fault=UNUSABLE[key])
    if key not in POLICIES:
        known = ", ".join(sorted(WRITTEN.values()))
        return Security(fault=f"the policy file {shown(policy)} is not known; known are {known}", unknown=True)
    return Security(profile, POLICIES[key])
