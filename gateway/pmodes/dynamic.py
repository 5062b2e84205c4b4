"""From the tables of `patterns` to what a leg works with: trust by path, and how a partner is found."""

from gateway.as4 import pmode
from gateway.as4.profiles import PROFILES
from gateway.as4.units import Service
from gateway.pmodes.agreements import Document
from gateway.pmodes.certificates import cas_in, ders_in, pem_in
from gateway.pmodes.patterns import Discovery, Metadata, Trust

#: SMP transport profiles of eDelivery AS4 1.x and 2.0 [as4 4.10].
TRANSPORT_1, TRANSPORT_2 = "bdxr-transport-ebms3-as4-v1p0", "bdxr-transport-ebms3-as4-v2p0"


def trust_of(table: Trust, document: Document, key: str) -> pmode.PathTrust:
    """What a leg knows of a trust table. Raises `ConfigError`."""
    return pmode.PathTrust(
        anchors=cas_in(table.anchors, document, f"{key}.anchors"),
        intermediates=cas_in(table.intermediates, document, f"{key}.intermediates") if table.intermediates else (),
        policies=table.policies,
        party_id=table.party_id,
        subject=table.demands,
        revocation=table.revocation,
    )


def discovery_of(
    table: Discovery, metadata: Metadata, service: Service, action: str, document: Document, key: str
) -> pmode.Discovery:
    """What a leg for this service and action knows of a discovery table. Raises `ConfigError`."""
    elliptic = PROFILES[document.file.profile].key_protection == "key-agreement"
    publishers, trust, tls_ca = table.publishers, table.publisher_trust, table.tls_ca
    return pmode.Discovery(
        zone=table.zone,
        smp=table.smp,
        lookup=table.lookup,
        smp_version=table.smp_version,
        participant=table.participant,
        participant_path=table.participant_path or ("urn" if table.smp_version == "1.0" else "scheme"),
        transport_profile=table.transport_profile or (TRANSPORT_2 if elliptic else TRANSPORT_1),
        document=metadata.document or action,
        document_scheme=metadata.document_scheme,
        process=metadata.process or service.value,
        process_scheme=metadata.process_scheme or (None if metadata.process else service.type),
        publishers=ders_in(publishers, document, f"{key}.publishers") if publishers else (),
        publisher_trust=trust_of(trust, document, f"{key}.publisher_trust") if trust else None,
        tls_ca=pem_in(tls_ca, document, f"{key}.tls_ca") if tls_ca else None,
    )
