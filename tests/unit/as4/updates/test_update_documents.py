"""Documents of an agreement update: shapes written by hand after the specification, and what is refused."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.as4.units import AgreementRef
from gateway.as4.updates.documents import (
    CertificateDigest,
    CertificateUpdate,
    OtherUpdate,
    TerminationException,
    TerminationRequest,
    TerminationResponse,
    UpdateError,
    UpdateException,
    UpdateRequest,
    UpdateResponse,
)
from gateway.as4.updates.reading import MAX_DOCUMENT, read
from gateway.as4.updates.writing import write
from gateway.errors import InvalidHeader
from tests import pki

CA = pki.Ca.root("Gas CA")
OLD, NEW = CA.leaf("AP_EE_01", serial=1), CA.leaf("AP_EE_01", serial=2)
NAMESPACES = (
    'xmlns:au="http://docs.oasis-open.org/ebcore/ns/AgreementUpdate/v1.0" '
    'xmlns:cu="http://docs.oasis-open.org/ebcore/ns/CertificateUpdate/v1.0" '
    'xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:dsig11="http://www.w3.org/2009/xmldsig11#" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
SHA512 = base64.b64encode(hashlib.sha512(OLD).digest()).decode()
KEY_INFO = f"<ds:X509Data><ds:X509Certificate>{base64.b64encode(NEW).decode()}</ds:X509Certificate></ds:X509Data>"
HEAD = """<au:ID>81ff47c6-84e7-4e09-8f6b-76f7807622d1</au:ID>
    <au:CreatedAt>2026-03-01T13:18:33.289487Z</au:CreatedAt>"""
AGREEMENTS = """<au:CurrentAgreementIdentifier>oldagreement</au:CurrentAgreementIdentifier>
    <au:UpdatedAgreementIdentifier type="urn:x:agr">newagreement</au:UpdatedAgreementIdentifier>"""
DIGEST = f'<dsig11:X509Digest Algorithm="http://www.w3.org/2001/04/xmlenc#sha512">{SHA512}</dsig11:X509Digest>'


def update(key_info=KEY_INFO, *, digest=DIGEST, id=' id="ur1"', after=""):
    return f"""<cu:CertificateUpdateRequest{id}>
        <cu:CurrentCertificateIdentifier>{digest}</cu:CurrentCertificateIdentifier>
        <ds:KeyInfo>{key_info}</ds:KeyInfo>{after}
      </cu:CertificateUpdateRequest>"""


def request(body=None, *, times="<au:RespondBy>2026-03-08T13:18:33Z</au:RespondBy>", agreements=AGREEMENTS, head=HEAD):
    body = update() if body is None else body
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- as other products indent it -->
<au:AgreementUpdateRequest {NAMESPACES} xsi:schemaLocation="http://x ../schema/ebcore-cu-v1.0.xsd">
    {head}{times}
    {agreements}
    {body}
</au:AgreementUpdateRequest>""".encode()


def answer(name, body):
    return f"""<au:{name} {NAMESPACES}>
    <au:ID>587fe7a9</au:ID><au:ReferenceID>81ff47c6</au:ReferenceID>
    <au:CreatedAt>2026-05-12T15:22:11</au:CreatedAt>{body}</au:{name}>""".encode()


def test_a_request():
    found = read(request())
    assert found == UpdateRequest(
        id="81ff47c6-84e7-4e09-8f6b-76f7807622d1",
        created_at=datetime(2026, 3, 1, 13, 18, 33, 289000, UTC), respond_by=datetime(2026, 3, 8, 13, 18, 33, tzinfo=UTC),
        current=AgreementRef("oldagreement"), updated=AgreementRef("newagreement", "urn:x:agr"),
        updates=(CertificateUpdate("ur1", CertificateDigest("http://www.w3.org/2001/04/xmlenc#sha512",
                                                            hashlib.sha512(OLD).digest()), (NEW,)),),
    )
    assert found.updates[0].replaces.names(OLD) and not found.updates[0].replaces.names(NEW)


def test_all_times_and_a_reason():
    times = ("<au:RespondBy>2026-03-08T00:00:00+02:00</au:RespondBy><au:ActivateBy>2026-04-01T00:00:00Z</au:ActivateBy>"
             "<au:ExpireBy>2027-04-01T00:00:00Z</au:ExpireBy>")
    reason = '<au:Reason xml:lang="en">the old one\n  expires</au:Reason><au:Reason xml:lang="lv">beidzas</au:Reason>'
    found = read(request(times=times, agreements=AGREEMENTS + reason))
    assert found.respond_by == datetime(2026, 3, 7, 22, tzinfo=UTC)
    assert (found.activate_by.month, found.expire_by.year) == (4, 2027)
    assert found.reason == "the old one expires"


def test_a_chain_in_any_order_has_the_new_certificate_first():
    certificates = "".join(f"<ds:X509Certificate>\n{base64.encodebytes(der).decode()}</ds:X509Certificate>"
                           for der in (CA.certificate, NEW))
    own = base64.b64encode(hashlib.sha256(NEW).digest()).decode()
    key_info = (f"<ds:KeyName>next</ds:KeyName><ds:X509Data><ds:X509SubjectName>CN=AP_EE_01</ds:X509SubjectName>{certificates}"
                f'<dsig11:X509Digest Algorithm="http://www.w3.org/2001/04/xmlenc#sha256">{own}</dsig11:X509Digest>'
                '<x:more xmlns:x="urn:x"/></ds:X509Data><x:more xmlns:x="urn:x"/>')
    [found] = read(request(update(key_info))).updates
    assert found.certificates == (NEW, CA.certificate) and found.certificate == NEW


def test_another_kind_of_update_is_told_by_its_name():
    other = '<eu:EndpointUpdateRequest xmlns:eu="urn:x:endpoint" id="e1"><eu:URL>https://x</eu:URL></eu:EndpointUpdateRequest>'
    found = read(request(update() + other))
    assert found.others == (OtherUpdate("e1", "EndpointUpdateRequest"),) and len(found.updates) == 1
    assert read(request(other)).updates == ()


def test_answers():
    both = AGREEMENTS
    facts = {"id": "587fe7a9", "reference": "81ff47c6", "created_at": datetime(2026, 5, 12, 15, 22, 11, tzinfo=UTC),
             "current": AgreementRef("oldagreement")}
    updated = {"updated": AgreementRef("newagreement", "urn:x:agr")}
    assert read(answer("AgreementUpdateResponse", both)) == UpdateResponse(**facts, **updated)
    error = ('<au:Error errorCode="AU:0006" severity="Failure" shortDescription="ActivateByRejected" '
             'refToUpdateInError="ur1"><au:Description xml:lang="en">needs ten working days</au:Description>'
             '<au:ErrorDetail><x/></au:ErrorDetail></au:Error>')
    said = UpdateError(code="AU:0006", short="ActivateByRejected", description="needs ten working days", about="ur1")
    assert read(answer("AgreementUpdateException", both + error)) == UpdateException(**facts, **updated, errors=(said,))
    current = "<au:CurrentAgreementIdentifier>oldagreement</au:CurrentAgreementIdentifier>"
    assert read(answer("AgreementTerminationResponse", current)) == TerminationResponse(**facts)
    bare = '<au:Error errorCode="AU:0001" severity="Warning"/>'
    assert read(answer("AgreementTerminationException", current + bare)) == TerminationException(
        **facts, errors=(UpdateError(code="AU:0001", severity="Warning"),))


def test_a_termination_request():
    octets = f"""<au:AgreementTerminationRequest {NAMESPACES}>{HEAD}
       <au:RespondBy>2026-03-08T13:18:33Z</au:RespondBy><au:TerminateBy>2026-03-31T23:59:59.000000Z</au:TerminateBy>
       <au:CurrentAgreementIdentifier>oldagreement</au:CurrentAgreementIdentifier>
    </au:AgreementTerminationRequest>""".encode()
    found = read(octets)
    assert (found.current.value, found.terminate_by) == ("oldagreement", datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC))


HUGE = b"<!--" + b"x" * MAX_DOCUMENT + b"-->"
TWO = f"<ds:X509Certificate>{base64.b64encode(NEW).decode()}</ds:X509Certificate>"


@pytest.mark.parametrize(("octets", "where"), [
    pytest.param(b"", "SOAP envelope", id="nothing"),
    pytest.param(b"<au/>", "agreement update", id="another document"),
    pytest.param(b"<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + request()[38:], "SOAP envelope", id="DTD"),
    pytest.param(request() + HUGE, "agreement update", id="too large"),
    pytest.param(request(head=HEAD + "<?pi x?>"), "SOAP envelope", id="processing instruction"),
    pytest.param(request(head=HEAD.replace("au:CreatedAt>2026", "au:CreatedAt>x2026")), "CreatedAt", id="no date"),
    pytest.param(request(head=HEAD.replace("au:ID", "au:Id")), "/ID", id="no id"),
    pytest.param(request(head=HEAD.replace("81ff", "8" * 300)), "/ID", id="long id"),
    pytest.param(request(times="<au:ActivateBy>2026-03-08T00:00:00Z</au:ActivateBy><au:RespondBy>2026-03-08T00:00:00Z"
                               "</au:RespondBy>"), "CurrentAgreementIdentifier", id="order"),
    pytest.param(request(agreements=AGREEMENTS.replace("oldagreement", " ")), "CurrentAgreementIdentifier", id="no name"),
    pytest.param(request(""), "UpdateRequest", id="no update"),
    pytest.param(request(update() * 2), "@id", id="one id twice"),
    pytest.param(request("".join(update(id=f' id="u{n}"') for n in range(9))), "UpdateRequest", id="too many"),
    pytest.param(request(update(id="")), "@id", id="update without id"),
    pytest.param(request(update(id=' id="1x"')), "@id", id="id no name"),
    pytest.param(request('<au:UpdateRequest id="u"/>'), "au:UpdateRequest", id="abstract"),
    pytest.param(request(update() + "<au:Reason>late</au:Reason>"), "@id", id="reason after updates"),
    pytest.param(request(update(digest="")), "X509Digest", id="names no certificate"),
    pytest.param(request(update(digest=DIGEST * 2)), "CurrentCertificateIdentifier", id="names two"),
    pytest.param(request(update(digest=DIGEST.replace("2001/04/xmlenc#sha512", "2000/09/xmldsig#sha1"))), "@Algorithm",
                 id="SHA-1"),
    pytest.param(request(update(digest=DIGEST.replace("sha512", "sha256"))), "X509Digest", id="other length"),
    pytest.param(request(update(digest=DIGEST.replace(SHA512, "$$$$"))), "X509Digest", id="no base64"),
    pytest.param(request(update(digest=DIGEST.replace(SHA512, f"{SHA512}<b/>"))), "X509Digest", id="elements in a value"),
    pytest.param(request(update(after="<ds:KeyInfo/>")), "ds:KeyInfo", id="two KeyInfo"),
    pytest.param(request(update('<ds:RetrievalMethod URI="http://evil/key"/>' + KEY_INFO)), "ds:KeyInfo", id="fetch"),
    pytest.param(request(update(KEY_INFO * 2)), "X509Data", id="two X509Data"),
    pytest.param(request(update("<ds:KeyName>a</ds:KeyName>")), "X509Data", id="a name alone"),
    pytest.param(request(update("<ds:KeyName>a</ds:KeyName>" * 2 + KEY_INFO)), "ds:KeyInfo", id="two names"),
    pytest.param(request(update("<ds:X509Data/>")), "X509Certificate", id="no certificate"),
    pytest.param(request(update(KEY_INFO.replace("<ds:X509Cert", "<ds:X509IssuerSerial/><ds:X509Cert", 1))),
                 "ds:X509Data", id="issuer and serial"),
    pytest.param(request(update(f"<ds:X509Data>{TWO * 7}</ds:X509Data>")), "X509Certificate", id="long chain"),
    pytest.param(request(update("<ds:X509Data><ds:X509Certificate>aGVsbG8=</ds:X509Certificate></ds:X509Data>")),
                 "X509Certificate", id="no certificate at all"),
    pytest.param(request(update("<ds:X509Data><ds:X509Certificate>" + "A" * 70_000 + "</ds:X509Certificate></ds:X509Data>")),
                 "X509Certificate", id="huge certificate"),
    pytest.param(request(update(KEY_INFO.replace("</ds:X509Data>", f"{DIGEST}</ds:X509Data>"))), "X509Digest",
                 id="digest of another certificate"),
    pytest.param(answer("AgreementUpdateException", AGREEMENTS), "Error", id="exception without error"),
    pytest.param(answer("AgreementUpdateException", AGREEMENTS + '<au:Error errorCode="AU:1"/>'), "@severity", id="severity"),
    pytest.param(answer("AgreementUpdateResponse", AGREEMENTS + "<au:Error/>"), "UpdateResponse", id="more than there is"),
])  # fmt: skip
def test_refused(octets, where):
    with pytest.raises(InvalidHeader) as refused:
        read(octets)
    assert where in refused.value.where


def test_two_leaves_are_no_chain():
    stranger = pki.Ca.root("Other CA").leaf("AP_FI_01")
    two = "".join(f"<ds:X509Certificate>{base64.b64encode(der).decode()}</ds:X509Certificate>" for der in (NEW, stranger))
    with pytest.raises(InvalidHeader, match="not one certificate"):
        read(request(update(f"<ds:X509Data>{two}</ds:X509Data>")))


# -- round trip ---------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))
agreements = st.builds(AgreementRef, words, st.none() | words)
errors = st.builds(UpdateError, code=words, short=st.none() | words, description=st.none() | words, about=st.none() | words)
facts = {"id": words, "reference": words, "created_at": moments, "current": agreements}
several = st.lists(errors, min_size=1, max_size=3).map(tuple)
updates = st.lists(st.sampled_from(["a", "b-1", "ļ.x"]), min_size=1, unique=True).map(
    lambda ids: tuple(CertificateUpdate(id, CertificateDigest.of(OLD), (NEW, CA.certificate)) for id in ids))
times = {name: st.none() | moments for name in ("respond_by", "activate_by", "expire_by")}
documents = st.one_of(
    st.builds(UpdateRequest, id=words, created_at=moments, current=agreements, updated=agreements, updates=updates,
              reason=st.none() | words, **times),
    st.builds(UpdateResponse, updated=agreements, **facts),
    st.builds(UpdateException, updated=agreements, errors=several, **facts),
    st.builds(TerminationRequest, id=words, created_at=moments, current=agreements, respond_by=times["respond_by"],
              terminate_by=st.none() | moments, reason=st.none() | words),
    st.builds(TerminationResponse, **facts),
    st.builds(TerminationException, errors=several, **facts),
)


@settings(max_examples=120, deadline=timedelta(seconds=2))
@given(documents)
def test_what_is_written_is_read(document):
    assert read(write(document)) == document


@settings(max_examples=150, deadline=timedelta(seconds=2))
@given(st.integers(0, 2000), st.binary(max_size=6))
def test_spoiled_octets_are_refused_or_read_and_nothing_else(place, octets):
    good = request()
    spoiled = good[:place] + octets + good[place + len(octets) :]
    try:
        read(spoiled)
    except InvalidHeader as refused:
        assert refused.where
