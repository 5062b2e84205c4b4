"""Agreement update as a means of telling partners of our next certificates."""

import datetime

import pytest
from msgspec import Struct

from gateway.errors import NotPossible
from gateway.operate.updates import own
from gateway.operate.updates.means import ByAgreementUpdate
from tests.updating import partner, renewed, run, settle, updates_world
from tests.world import to_pem

UTC = datetime.UTC


class NextKey(Struct):
    uses: tuple[str, ...]
    certificate: bytes
    chain: tuple[bytes, ...] = ()
    replaces: bytes | None = None


class Announcement(Struct):
    keys: tuple[NextKey, ...]
    begins: datetime.datetime | None = None


async def test_a_partner_with_updates_is_asked(tmp_path):
    async with updates_world(tmp_path) as w:
        pmodes = await settle(w)
        means = ByAgreementUpdate(w.store, pmodes, host="lv.example", actor="ann@lv")
        party = partner(pmodes)
        assert means.reaches(party) and not means.reaches(pmodes.selves[0])
        new = renewed(w, name="AP_LV_01").signing
        begins = datetime.datetime.now(UTC).replace(microsecond=0) + datetime.timedelta(days=9)
        keys = (NextKey(("sign", "decrypt"), new, (w.authority.certificate,), w.keys.signing),
                NextKey(("tls-server",), b"tls", (), b"old"))
        assert "asked by agreement update" in await means.tell(party, Announcement(keys, begins))
        await run(w)
        [(_, asked)] = w.answers
        assert [u.certificate for u in asked.updates] == [new] and asked.activate_by == begins
        for none in (Announcement(()), Announcement((NextKey(("sign",), new),))):
            with pytest.raises(NotPossible):
                await means.tell(party, none)


async def test_what_a_new_certificate_replaces_is_found_by_its_use(tmp_path):
    from gateway.errors import CertificateRefused, ConfigError

    async with updates_world(tmp_path) as w:
        rooms, pmodes = w.gateway._rooms, await settle(w)
        common = {"config": rooms.config, "now": datetime.datetime.now(UTC)}
        new = renewed(w, name="AP_LV_01").signing
        [found] = own.renewals([to_pem(w.authority.certificate) + to_pem(new)], pmodes, rooms.keyring.value, "AP_EE_01", **common)
        assert (found.certificate, found.replaces, found.chain) == (new, w.keys.signing, (w.authority.certificate,))
        for octets, error in ((to_pem(w.keys.signing), ConfigError), (to_pem(w.authority.certificate), CertificateRefused),
                              (to_pem(new) + to_pem(w.keys.signing), ConfigError)):
            with pytest.raises(error):
                own.renewals([octets], pmodes, rooms.keyring.value, "AP_EE_01", **common)
        with pytest.raises(ConfigError, match="same use"):
            own.renewals([to_pem(new)] * 2, pmodes, rooms.keyring.value, "AP_EE_01", **common)
