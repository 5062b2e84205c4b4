"""The SOAP door: what clients of the Domibus WS plugin speak, at the same addresses, unchanged.

    names      namespaces, operations, status names
    reading    a SOAP request as it streams in: small things as a tree, payloads as bytes
    transfer   MTOM and SOAP with attachments: which octets belong to which payload
    faults     what is answered when it cannot be done, text by text
    writing    answers, payloads streamed
    submission a Messaging header becomes a `plugin.Submission`
    operations the ten operations, and the five old ones
    wsdl       the contract, served at ?wsdl
    door       HTTP: addresses, Basic authentication, translation of errors

Facts about Domibus are those of its releases 5.1 and 5.2.1 as observed from outside; where
a release differs the newer one is followed.
"""

from gateway.backends.domibus_ws.door import DomibusWsBackend

__all__ = ["DomibusWsBackend"]
