"""A pinned certificate is judged once; its time is judged for every message."""

import datetime
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.msh import rooms
from gateway.msh.rooms import Rooms
from tests.peer import Authority

NOW = datetime.datetime.now(datetime.UTC)
LATER = NOW + datetime.timedelta(days=31)
EARLIER = NOW - datetime.timedelta(days=2)


@pytest.fixture
def made():
    nothing = dict.fromkeys(("store", "agreements", "revisions", "keyring", "kek", "client", "clock", "cpu", "paths", "partners", "sightings", "revocations"))
    return Rooms(config=SimpleNamespace(trust=Trust()), node="n", **nothing)


def certificate(usage="sign"):
    return Authority().issue("EE", ed25519.Ed25519PrivateKey.generate().public_key(), usage, days=30)


def test_time_is_checked_for_every_message(made, monkeypatch):
    checks = []
    check = rooms.check_certificate
    monkeypatch.setattr(rooms, "check_certificate", lambda *a, **k: (checks.append(1), check(*a, **k)))
    der = certificate()
    for _ in range(3):
        made.check_signer(NOW)(der)
    assert len(checks) == 1
    for moment, reason in ((LATER, "expired"), (EARLIER, "not-yet-valid")):
        with pytest.raises(CertificateRefused) as refused:
            made.check_signer(moment)(der)
        assert refused.value.reason == reason
    made.check_signer(NOW)(der)


def test_a_certificate_is_usable_for_what_it_was_judged_for(made):
    der = certificate("sign")
    made.check_pinned(der, "sign", NOW)
    with pytest.raises(CertificateRefused):
        made.check_pinned(der, "encrypt", NOW)
