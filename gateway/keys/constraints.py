"""What the CAs of a path say about the certificates below them: names and policies [RFC 5280, 4.2.1.10-14, 6.1].

Both functions judge a path that is right otherwise, leaf first and anchor last. What an anchor
says counts like what any CA says: whoever configures a constrained CA means the constraint.
"""

import ipaddress
from collections.abc import Callable, Iterator, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.errors import CertificateRefused

ANY_POLICY = "2.5.29.32.0"
#: Names of a certificate, times those of a constraint: more is refused and not compared.
MAX_COMPARISONS = 4096

Path = Sequence[x509.Certificate]


# -- names ------------------------------------------------------------------------


def check_names(path: Path) -> None:
    """Every name below a constrained CA is permitted and not excluded. Raises `CertificateRefused`.

    A kind of name that has no rule here and is constrained is refused where it occurs.
    """
    for place in range(1, len(path)):
        constraints = _extension(path[place], x509.NameConstraints)
        if constraints is None:
            continue
        permitted = list(constraints.permitted_subtrees or ())
        excluded = list(constraints.excluded_subtrees or ())
        for number, certificate in enumerate(path[:place]):
            # A CA that renewed itself is not constrained by its own word; the end of the path always is.
            if number and certificate.subject.public_bytes() == certificate.issuer.public_bytes():
                continue
            names = list(_names(certificate))
            if len(names) * (len(permitted) + len(excluded)) > MAX_COMPARISONS:
                raise CertificateRefused("name-constraints", "too many names to compare")
            for name in names:
                _check_name(name, permitted, excluded)


def _names(certificate: x509.Certificate) -> Iterator[x509.GeneralName]:
    subject = certificate.subject
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    if list(subject):
        yield x509.DirectoryName(subject)
    if alternative is not None:
        yield from alternative
    if alternative is None or not alternative.get_values_for_type(x509.RFC822Name):
        for attribute in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
            yield x509.RFC822Name(str(attribute.value))


def _check_name(
    name: x509.GeneralName, permitted: Sequence[x509.GeneralName], excluded: Sequence[x509.GeneralName]
) -> None:
    kind = type(name)
    allowed = [tree for tree in permitted if type(tree) is kind]
    forbidden = [tree for tree in excluded if type(tree) is kind]
    if not allowed and not forbidden:
        return
    within = _WITHIN.get(kind)
    if within is None:
        raise CertificateRefused("name-constraints", f"a name of a kind that cannot be judged ({kind.__name__})")
    if any(within(name.value, tree.value) for tree in forbidden) or (
        allowed and not any(within(name.value, tree.value) for tree in allowed)
    ):
        raise CertificateRefused("name-constraints", "a CA of the path does not allow the name of the certificate")


def _directory(name: x509.Name, tree: x509.Name) -> bool:
    """Whether the tree is the beginning of the name, by DER: no folding that somebody else would do otherwise."""
    return [_rdn(rdn) for rdn in name.rdns[: len(tree.rdns)]] == [_rdn(rdn) for rdn in tree.rdns]


def _rdn(rdn: x509.RelativeDistinguishedName) -> frozenset[tuple[str, str]]:
    # Values are compared without case and runs of blanks, as RFC 5280 7.1 asks of constraints.
    return frozenset((a.oid.dotted_string, " ".join(str(a.value).split()).casefold()) for a in rdn)


def _dns(name: str, tree: str) -> bool:
    name, tree = name.lower().rstrip("."), tree.lower().strip(".")
    return not tree or name == tree or name.endswith("." + tree)


def _host(host: str, tree: str) -> bool:
    """For hosts of URIs and mail: a tree with a leading dot is every host below it, without it that very host."""
    host, tree = host.lower(), tree.lower()
    return host.endswith(tree) if tree.startswith(".") else host == tree


def _mail(name: str, tree: str) -> bool:
    local, _, host = name.rpartition("@")
    if "@" in tree:
        other, _, where = tree.rpartition("@")
        return local == other and host.lower() == where.lower()
    return _host(host, tree)


def _uri(name: str, tree: str) -> bool:
    authority = name.partition("://")[2].partition("/")[0].rpartition("@")[2]
    host = authority.partition(":")[0]
    if not host:
        # A URN has no host; what a constraint on hosts means for it nobody knows.
        raise CertificateRefused("name-constraints", "a URI without a host under a constraint on URIs")
    return _host(host, tree)


def _address(name: object, tree: object) -> bool:
    if isinstance(tree, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return getattr(name, "version", None) == tree.version and name in tree
    return False


_WITHIN: dict[type, Callable] = {
    x509.DirectoryName: _directory,
    x509.DNSName: _dns,
    x509.RFC822Name: _mail,
    x509.UniformResourceIdentifier: _uri,
    x509.IPAddress: _address,
}


# -- policies -----------------------------------------------------------------------


def check_policies(path: Path, wanted: frozenset[str]) -> None:
    """The path is valid for one of `wanted` OIDs, or for any policy when none is wanted [RFC 5280, 6.1].

    Policy mappings are not followed (as with initial-policy-mapping-inhibit): a critical one is
    refused as unknown. Raises `CertificateRefused`.
    """
    length = len(path) - 1
    explicit = 0 if wanted else length + 1
    any_inhibited = length + 1
    #: The policies for which everything so far is valid; None: for any.
    valid: frozenset[str] | None = None
    explicit, any_inhibited = _lower(path[-1], explicit, any_inhibited)
    for number, certificate in enumerate(reversed(path[:-1]), 1):
        own = number < length and certificate.subject.public_bytes() == certificate.issuer.public_bytes()
        valid = _narrow(valid, certificate, any_inhibited > 0 or own)
        if explicit <= 0 and valid is not None and not valid:
            raise CertificateRefused("policy", "the path is valid for no certificate policy")
        if not own:
            explicit, any_inhibited = explicit - 1, any_inhibited - 1
        explicit, any_inhibited = _lower(certificate, explicit, any_inhibited)
    if explicit <= 0 or wanted:
        left = valid if not wanted else wanted if valid is None else valid & wanted
        if left is not None and not left:
            raise CertificateRefused("policy", "the path is not valid for a certificate policy of the agreement")


def _narrow(valid: frozenset[str] | None, certificate: x509.Certificate, any_counts: bool) -> frozenset[str] | None:
    """What is valid below `certificate` of what was valid above it."""
    said = _extension(certificate, x509.CertificatePolicies)
    if said is None:
        return frozenset()
    named = frozenset(p.policy_identifier.dotted_string for p in said)
    if any_counts and ANY_POLICY in named:
        return valid
    named -= {ANY_POLICY}
    return named if valid is None else valid & named


def _lower(certificate: x509.Certificate, explicit: int, any_inhibited: int) -> tuple[int, int]:
    """The two counters after what a CA says about those below it."""
    constraints = _extension(certificate, x509.PolicyConstraints)
    if constraints is not None and constraints.require_explicit_policy is not None:
        explicit = min(explicit, constraints.require_explicit_policy)
    inhibit = _extension(certificate, x509.InhibitAnyPolicy)
    if inhibit is not None:
        any_inhibited = min(any_inhibited, inhibit.skip_certs)
    return explicit, any_inhibited


def _extension(certificate: x509.Certificate, kind: type):
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
