"""A partner's certificate from staged to promoted to retired: what is pinned, what is written, what is told."""

import hashlib
import tomllib
from datetime import UTC, datetime, timedelta

import pytest

from gateway import app
from gateway.clock import SystemClock
from gateway.config import Config, Trust
from gateway.errors import CertificateRefused, ConfigError, NotFound, NotPossible, StalePlan
from gateway.keys import likeness
from gateway.operate import agreements
from gateway.operate import partner_certificates as verbs
from gateway.operate.doctor_certificates import certificate_checks
from gateway.operate.pins import Pins, promoted, retired, staged
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.toml import expanded
from gateway.store.api import AuditEntry
from gateway.store.memory import MemoryStore
from gateway.store.partner_certificates import NewStranger, Revocation
from tests.pki import SIGN, Ca, key, usage
from tests.world import EE, to_pem

NOW = datetime.now(UTC)
CA = Ca.root("CA")
OLD = CA.leaf({"CN": "AP_EE_01", "O": "RIA", "C": "EE"}, key("rsa", 81).public_key())
NEW = CA.leaf({"CN": "AP_EE_01", "O": "RIA", "C": "EE"}, key("rsa", 82).public_key())
SIGNS = CA.leaf("AP_EE_01", key("rsa", 83).public_key(), key_usage=SIGN)
OPENS = CA.leaf("AP_EE_01", key("rsa", 84).public_key(), key_usage=usage("key_encipherment"))
EXPIRED = CA.leaf("AP_EE_01", start=-9, days=5)
TOMORROW = CA.leaf("AP_EE_01", key("rsa", 85).public_key(), start=1)
PARTY = f"{EE.type}:{EE.value}"
ONE = Pins(signing=OLD, encryption=OLD)


def stage(pins, der, use=None, replaces=False):
    return staged(pins, der, use=use, now=NOW, allow=Trust(), replaces=replaces)


def promote(pins, seen=True, encrypt=None, keep_old=True, now=NOW):
    return promoted(pins, seen=seen, encrypt=encrypt, keep_old=keep_old, now=now, allow=Trust())


class TestPins:
    def test_staged(self):
        assert stage(ONE, NEW) == Pins(signing=OLD, encryption=OLD, next=NEW)
        assert stage(ONE, TOMORROW).next == TOMORROW  # not valid yet: that is what staging is for
        assert stage(ONE, OPENS) == Pins(signing=OLD, encryption=OLD, next_encryption=OPENS)
        assert stage(ONE, NEW, use="encrypt").next_encryption == NEW
        assert stage(stage(ONE, NEW), NEW) == stage(ONE, NEW)

    def test_two_may_sign_and_no_third(self):
        assert stage(Pins(signing=NEW, encryption=NEW, previous=OLD), SIGNS) == Pins(signing=NEW, encryption=NEW, next=SIGNS)
        with pytest.raises(NotPossible, match="another certificate is staged"):
            stage(stage(ONE, NEW), SIGNS)
        assert stage(stage(ONE, NEW), SIGNS, replaces=True).next == SIGNS

    def test_what_cannot_be_staged(self):
        for der, use, reason in ((EXPIRED, None, "expired"), (OPENS, "sign", "key-usage"), (SIGNS, "encrypt", "key-usage"),
                                 (b"x", None, "malformed"), (CA.certificate, None, "ca-as-leaf")):
            with pytest.raises(CertificateRefused) as refused:
                stage(ONE, der, use)
            assert refused.value.reason == reason
        with pytest.raises(NotPossible, match="has already"):
            stage(ONE, OLD)

    def test_one_that_was_seen_is_encrypted_to_as_well(self):
        assert promote(stage(ONE, NEW)) == (Pins(signing=NEW, encryption=NEW, previous=OLD), ())
        assert promote(stage(ONE, NEW), keep_old=False)[0].previous is None

    def test_one_that_was_not_seen_is_not_encrypted_to(self):
        after, (note,) = promote(stage(ONE, NEW), seen=False)
        assert after == Pins(signing=NEW, encryption=OLD, previous=OLD) and "--encrypt" in note
        assert promote(after, encrypt=True)[0] == Pins(signing=NEW, encryption=NEW, previous=OLD)
        assert promote(stage(ONE, NEW), seen=False, encrypt=True)[0].encryption == NEW

    def test_the_operators_word_counts_against_it_too(self):
        assert promote(stage(ONE, NEW), encrypt=False)[0] == Pins(signing=NEW, encryption=OLD, previous=OLD)

    def test_one_for_signing_leaves_encryption_where_it_is(self):
        after, (note,) = promote(stage(ONE, SIGNS))
        assert after.encryption == OLD and "not for encryption" in note
        with pytest.raises(CertificateRefused):
            promote(stage(ONE, SIGNS), encrypt=True)
        two = Pins(signing=SIGNS, encryption=OPENS)
        assert promote(stage(two, NEW)) == (Pins(signing=NEW, encryption=OPENS, previous=SIGNS), ())

    def test_a_new_encryption_certificate(self):
        two = stage(Pins(signing=SIGNS, encryption=OPENS), NEW, use="encrypt")
        assert promote(two)[0] == Pins(signing=SIGNS, encryption=NEW)
        pair = stage(two, OLD, use="sign")
        assert promote(pair)[0] == Pins(signing=OLD, encryption=NEW, previous=SIGNS)
        waits = promote(pair, seen=False)[0]
        assert (waits.encryption, waits.next_encryption) == (OPENS, NEW)

    def test_nothing_to_promote_or_not_yet(self):
        for pins in (ONE, Pins()):
            with pytest.raises(NotPossible):
                promote(pins)
        with pytest.raises(CertificateRefused, match="valid from"):
            promote(stage(ONE, TOMORROW))
        assert promote(stage(ONE, TOMORROW), now=NOW + timedelta(days=2))[0].signing == TOMORROW

    def test_retired(self):
        assert retired(Pins(signing=NEW, previous=OLD), "previous") == Pins(signing=NEW)
        with pytest.raises(NotPossible):
            retired(ONE, "next")


class TestLikeness:
    def test_a_renewal(self):
        found = likeness.compare(OLD, NEW, [CA.certificate])
        assert found.expected and found.ca_proven is True and not found.same("key") and found.same("kind of key")
        assert likeness.compare(OLD, NEW).ca_proven is None

    def test_another_ca_of_that_name_proves_nothing(self):
        forged = Ca.root("CA", private=key("ec", 86)).leaf({"CN": "AP_EE_01", "O": "RIA", "C": "EE"})
        found = likeness.compare(OLD, forged, [CA.certificate])
        assert found.same("issuer") and found.same("subject") and not found.same("issuer's key")
        assert found.ca_proven is False and not found.expected

    def test_what_differs_is_named(self):
        other = CA.leaf({"CN": "AP_EE_01", "O": "Another", "C": "EE"}, key_usage=SIGN)
        assert verbs.differences(likeness.compare(OLD, other)) == ["subject", "organisation id", "key usage"]
        with pytest.raises(ValueError):
            likeness.compare(OLD, b"x")


# -- as a revision ------------------------------------------------------------------------

TEXT = """# who we are
profile = "oots/2.0"
self = "AP_LV_01"

[parties.AP_LV_01]
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:LV"

[parties.AP_EE_01]  # Estonia
type = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:EE"
endpoint = "https://ap.example.ee/as4"
certificate = "ee.pem"  # from the service desk
"""


class Site:
    def __init__(self, folder):
        (folder / "pmodes").mkdir()
        (folder / "certs").mkdir()
        (folder / "certs/ee.pem").write_bytes(to_pem(OLD))
        self.file = folder / "pmodes/a.toml"
        self.file.write_text(TEXT)
        (folder / "gateway.toml").write_text("")
        self.config, self.store = Config.load(folder / "gateway.toml", environ={}), MemoryStore(SystemClock())

    def files(self):
        return app.load_bundle(self.config)

    async def begin(self):
        from gateway.store.agreements import NewRevision

        await self.store.begin_agreements(NewRevision(base=0, content=self.files().encode(), author="a", reason="r"))
        return self

    async def pins(self):
        pmodes = expanded(Bundle.decode((await self.store.active_agreements()).content))
        return Pins.of(next(p for p in pmodes.parties if p.name == "AP_EE_01"))

    async def do(self, plan, **more):
        change = await plan
        assert not change.plan.errors
        return change, await verbs.carry_out(self.store, self.config, change, author="ada", reason="renewed", **more)

    async def stage(self, octets=None, **more):
        octets = to_pem(NEW) if octets is None else octets
        return await self.do(verbs.plan_stage(self.store, self.config, "AP_EE_01", octets, files=self.files(), **more))

    async def promote(self, **more):
        return await self.do(verbs.plan_promote(self.store, self.config, "AP_EE_01", files=self.files(), **more))

    async def used(self, der=NEW):
        entry = AuditEntry(kind="k", actor="n", subject="s")
        await self.store.note_next(PARTY, hashlib.sha256(der).hexdigest(), entry)


@pytest.fixture
async def site(tmp_path):
    return await Site(tmp_path).begin()


class TestRevisions:
    async def test_from_staged_to_retired_files_and_revisions_stay_in_step(self, site):
        change, outcome = await site.stage()
        assert outcome.revision.state == "ACTIVE" and change.likeness.expected and change.in_step
        assert await site.pins() == Pins(signing=OLD, encryption=OLD, next=NEW)
        assert await agreements.drift(site.store, site.files()) is None
        text = site.file.read_text()
        assert "# from the service desk" in text and "# who we are" in text
        await site.used()
        await site.promote()
        assert await site.pins() == Pins(signing=NEW, encryption=NEW, previous=OLD)
        table = tomllib.loads(site.file.read_text())["parties"]["AP_EE_01"]
        assert table["previous"] == "ee.pem" and table["certificate"].startswith("ap_ee_01-") and "next" not in table
        await site.do(verbs.plan_retire(site.store, site.config, "AP_EE_01", "previous", files=site.files()))
        assert await site.pins() == Pins(signing=NEW, encryption=NEW)
        assert await agreements.drift(site.store, site.files()) is None
        assert (await site.store.active_agreements()).number == 4

    async def test_the_act_stands_in_the_audit(self, site):
        await site.stage()
        [entry] = [e for e in await site.store.audit_entries() if e.kind == "agreements.proposed"]
        assert (entry.actor, entry.detail["act"], entry.detail["party"]) == ("ada", "certificate stage", "AP_EE_01")
        assert entry.detail["next_sha256"] == hashlib.sha256(NEW).hexdigest() and entry.detail["reason"] == "renewed"

    async def test_files_that_say_something_else_are_left_alone(self, site):
        site.file.write_text(TEXT + "\n# a draft\n")
        change, _ = await site.stage()
        assert not change.in_step and site.file.read_text() == TEXT + "\n# a draft\n"
        assert (await site.pins()).next == NEW
        assert "revision 2" in await agreements.drift(site.store, site.files())

    async def test_files_that_cannot_be_read_are_no_reason_to_fail(self, site):
        site.file.write_text("[[[")
        change = await verbs.plan_stage(site.store, site.config, "AP_EE_01", NEW, files=verbs.files_of(site.files))
        assert not change.in_step and change.after.next == NEW

    async def test_a_crash_before_the_files_is_drift_and_never_goes_back(self, site):
        change = await verbs.plan_stage(site.store, site.config, "AP_EE_01", NEW, files=site.files())
        await agreements.apply(site.store, change.bundle, base=1, author="a", reason="r")  # … and the process dies here
        assert "revision 1, in force is revision 2" in await agreements.drift(site.store, site.files())

    async def test_a_folder_that_cannot_be_written_is_told_and_the_change_is_in_force(self, site, monkeypatch):
        def full(_):
            raise ConfigError("cannot be written: No space left on device", file="a.toml")

        monkeypatch.setattr(verbs.partner_files, "carry_out", full)
        with pytest.raises(verbs.NotWritten, match="No space") as told:
            await site.stage()
        assert told.value.outcome.revision.state == "ACTIVE" and (await site.pins()).next == NEW

    async def test_a_plan_that_was_overtaken_is_stale(self, site):
        change = await verbs.plan_stage(site.store, site.config, "AP_EE_01", NEW, files=site.files())
        await site.stage(SIGNS)
        with pytest.raises(StalePlan):
            await verbs.carry_out(site.store, site.config, change, author="a", reason="r")

    async def test_who_is_not_there(self, site):
        for party, words in (("AP_EE_02", "did you mean"), ("AP_LV_01", "our own")):
            with pytest.raises(NotFound, match=words):
                await verbs.plan_stage(site.store, site.config, party, NEW)

    async def test_without_a_revision(self, tmp_path):
        site = Site(tmp_path)
        with pytest.raises(NotPossible, match="first revision"):
            await verbs.plan_promote(site.store, site.config, "AP_EE_01")

    async def test_a_file_with_its_chain_and_one_with_two_leaves(self, site):
        assert verbs.one_certificate(to_pem(CA.certificate) + to_pem(NEW)) == NEW
        with pytest.raises(CertificateRefused, match="2 of them"):
            verbs.one_certificate(to_pem(OLD) + to_pem(NEW))
        with pytest.raises(CertificateRefused):
            verbs.one_certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n")

    async def test_both_files_of_a_partner_that_stands_in_two(self, tmp_path):
        site = Site(tmp_path)
        (tmp_path / "pmodes/b.toml").write_text(TEXT.replace("AP_LV_01", "AP_LV_02"))
        await site.begin()
        await site.stage()
        texts = [tomllib.loads((tmp_path / "pmodes" / name).read_text())["parties"]["AP_EE_01"] for name in ("a.toml", "b.toml")]
        assert texts[0] == texts[1] and "next" in texts[0] and await agreements.drift(site.store, site.files()) is None


class TestStageNext:
    async def test_for_a_caller_without_a_plan(self, site):
        outcome = await verbs.stage_next(site.store, site.config, "AP_EE_01", NEW, author="rule", reason="update 7")
        assert outcome.revision.author == "rule" and (await site.pins()).next == NEW
        assert await verbs.stage_next(site.store, site.config, "AP_EE_01", NEW, author="rule", reason="again") is None

    async def test_it_plans_anew_when_it_is_overtaken(self, site, monkeypatch):
        plans, plan_stage = [], verbs.plan_stage

        async def overtaken(*arguments, **more):
            change = await plan_stage(*arguments, **more)
            if not plans:
                text = site.file.read_text().replace("ap.example.ee", "new.example.ee")
                bundle = Bundle(("a.toml",), {"a.toml": text.encode(), "ee.pem": to_pem(OLD)})
                await agreements.apply(site.store, bundle, base=1, author="b", reason="b")
            plans.append(change)
            return change

        monkeypatch.setattr(verbs, "plan_stage", overtaken)
        outcome = await verbs.stage_next(site.store, site.config, "AP_EE_01", NEW, author="rule", reason="r")
        assert outcome.revision.number == 3 and len(plans) == 2 and (await site.pins()).next == NEW

    async def test_what_lint_refuses(self, site):
        from gateway.pmodes.lint import Finding

        def lint(files):
            return [Finding("P009", "error", "a.toml", "no")] if b"next" in files.agreement("a.toml") else []

        with pytest.raises(ConfigError, match="no"):
            await verbs.stage_next(site.store, site.config, "AP_EE_01", NEW, author="rule", reason="r", lint=lint)


class TestOverview:
    async def test_roles_first_use_and_quarantine(self, site):
        await site.stage()
        await site.used()
        stranger = NewStranger(party=PARTY, sha256="ab" * 32, der=SIGNS, subject="s", issuer="i", valid_from=NOW, valid_until=NOW)
        await site.store.quarantine(stranger)
        found = await verbs.overview(site.store, site.config)
        assert [(p.roles, p.in_use_since is not None) for p in found.pinned] == [(("active", "encryption"), False), (("next",), True)]
        assert found.promotable == found.pinned[1:] and [s.sha256 for s in found.waiting] == ["ab" * 32]
        with pytest.raises(NotFound):
            await verbs.overview(site.store, site.config, party="nobody")

    async def test_a_decision(self, site):
        stranger = NewStranger(party=PARTY, sha256="ab" * 32, der=NEW, subject="s", issuer="i", valid_from=NOW, valid_until=NOW)
        await site.store.quarantine(stranger)
        found, party, alike = await verbs.examined(site.store, site.config, "AB:AB")
        assert party.name == "AP_EE_01" and alike.same("subject")
        assert await verbs.decide(site.store, found, "REJECTED", actor="ada", reason="not theirs")
        assert [e.kind for e in await site.store.audit_entries()][-1] == "certificate.rejected"
        for wanted in ("ff", ""):
            with pytest.raises(NotFound):
                await verbs.examined(site.store, site.config, wanted)


NETWORK = """
self = "AP_LV_01"
profile = "oots/2.0"
[network]
pmode = "base.toml"
truststore = { path = "store.pem" }
[overlay.parties.AP_EE_01]
endpoint = "https://other.example.ee/as4"
"""


class TestNetwork:
    async def test_the_overlay_holds_what_is_ours_and_the_truststore_goes_on(self, tmp_path):
        site = Site(tmp_path)
        (tmp_path / "pmodes/base.toml").write_text(TEXT.replace('certificate = "ee.pem"', ""))
        site.file.write_text(NETWORK)

        def store(der):
            (tmp_path / "pmodes/store.pem").write_bytes(to_pem(der))

        store(OLD)
        await site.begin()
        await site.stage()
        overlay = tomllib.loads(site.file.read_text())["overlay"]["parties"]["AP_EE_01"]
        assert set(overlay) == {"endpoint", "next"}  # what the network publishes stays its own
        assert await agreements.drift(site.store, site.files()) is None
        await site.used()
        await site.promote()
        assert await site.pins() == Pins(signing=NEW, encryption=NEW, previous=OLD)
        assert await agreements.drift(site.store, site.files()) is None

    async def test_a_domibus_file_cannot_be_pinned_in(self, site):
        base = site.files()
        party = next(p for p in expanded(base).parties if p.name == "AP_EE_01")
        document = verbs.toml.read(base, "a.toml")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verbs.toml, "read", lambda *_: document)
            bundle = Bundle(("pmode.xml",), {"pmode.xml": b"<x/>"})
            with pytest.raises(ConfigError, match="network"):
                verbs.repinned(bundle, party, Pins(signing=NEW, encryption=NEW))


class TestDoctor:
    async def checks(self, site):
        pmodes = expanded(Bundle.decode((await site.store.active_agreements()).content))
        found = await certificate_checks(site.store, pmodes, site.config, now=NOW)
        return {check.name: (check.verdict, check.text) for check in found}

    async def test_nothing_to_say(self, site):
        assert await self.checks(site) == {}

    async def test_decisions_that_wait(self, site):
        await site.stage()
        await site.used()
        stranger = NewStranger(party=PARTY, sha256="ab" * 32, der=SIGNS, subject="s", issuer="i", valid_from=NOW, valid_until=NOW)
        await site.store.quarantine(stranger)
        found = await self.checks(site)
        assert found["next certificate AP_EE_01"][0] == "warn" and found["quarantine"][1].endswith("decision: AP_EE_01")
        await site.promote()
        assert set(await self.checks(site)) == {"quarantine"}

    async def test_what_issuers_say(self, site):
        def said(name, **more):
            return Revocation(certificate=name, issuer="ca", subject=f"CN={name}", tried_at=NOW, **more)

        answer = {"source": "ocsp", "host": "o", "answered_at": NOW - timedelta(minutes=12)}
        for one in (said("a", status="good", **answer), said("b", status="revoked", revocation_reason="superseded", **answer),
                    said("c", failing_since=NOW - timedelta(hours=2), trouble="o: HTTP 503"), said("d", status="unknown", **answer)):
            await site.store.save_revocation(one)
        found = await self.checks(site)
        assert found["revocation"] == ("ok", "1 certificates good, the oldest answer 12 min old")
        assert found["revocation CN=b"] == ("fail", "revoked, says o (superseded)")
        assert found["revocation CN=c"][0] == "warn" and "no answer for 2.0 h" in found["revocation CN=c"][1] and "22.0 h more" in found["revocation CN=c"][1]
        assert found["revocation CN=d"][0] == "fail"
