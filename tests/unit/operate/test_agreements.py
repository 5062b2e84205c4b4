"""What changes from one set of agreements to another, and how a change is planned."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.as4.pmode import PathTrust
from gateway.clock import SystemClock
from gateway.errors import ConfigError, NotFound, StalePlan
from gateway.keys.development import make_development
from gateway.operate import agreements
from gateway.operate import plan as planning
from gateway.operate.changes import Changes, Difference, compare
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.lint import Finding
from gateway.pmodes.toml import expanded
from gateway.store.agreements import Beat, NewRevision
from gateway.store.memory import MemoryStore
from tests.contract.test_store_contract import outbound

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered:"


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_development(folder, ["AP_EE_01", "AP_FI_01"], now=NOW, valid_for=timedelta(days=300))
    make_development(folder / "soon", ["AP_EE_01"], now=NOW, valid_for=timedelta(days=20))
    found = {path.name: path.read_bytes() for path in folder.glob("ap_*.pem") if b"PRIVATE" not in path.read_bytes()}
    return {**found, "soon.pem": (folder / "soon" / "ap_ee_01.pem").read_bytes()}


def party(name, certificate=None, endpoint="https://ap.example/as4"):
    certificate = f'certificate = "{certificate}"\nendpoint = "{endpoint}"' if certificate else ""
    return f'[parties.{name}]\ntype = "{UNREGISTERED}{name[3:5]}"\n{certificate}\n'


def bundle(pems, *parties, top="", files=()):
    text = f'profile = "oots/2.0"\nself = "AP_LV_01"\n{top}\n' + party("AP_LV_01") + "".join(parties)
    named = {name: octets for name, octets in pems.items() if f'"{name}"' in text}
    return Bundle(("a.toml",), {"a.toml": text.encode(), **named, **dict(files)})


@pytest.fixture
def estonia(pems):
    return bundle(pems, party("AP_EE_01", "ap_ee_01.pem"))


def changes(before, after):
    return compare(expanded(before), expanded(after), now=NOW)


def shown(found):
    return [(p.change, p.name, [f.field for f in p.fields]) for p in found.parties]


class TestChanges:
    def test_equal_is_nothing(self, estonia):
        assert not changes(estonia, estonia) and changes(estonia, estonia) == Changes()

    def test_a_new_partner(self, pems, estonia):
        found = changes(estonia, bundle(pems, party("AP_EE_01", "ap_ee_01.pem"), party("AP_FI_01", "ap_fi_01.pem", "https://fi.example/as4")))
        assert shown(found) == [("added", "AP_FI_01", [])]
        assert [(c.party, c.use, c.change) for c in found.certificates] == [
            ("AP_FI_01", "encrypt", "new"), ("AP_FI_01", "sign", "new")]  # fmt: skip
        assert found.certificates[0].days == 300 and "AP_FI_01" in found.certificates[0].subject
        assert {leg.change for leg in found.legs} == {"added"} and len(found.legs) == 14
        assert all("AP_FI_01" in leg.pmode_id for leg in found.legs)

    def test_a_partner_goes(self, pems, estonia):
        found = changes(estonia, bundle(pems, party("AP_FI_01", "ap_fi_01.pem")))
        assert shown(found) == [("removed", "AP_EE_01", []), ("added", "AP_FI_01", [])]

    def test_an_endpoint_is_told_once_and_not_with_every_leg(self, pems, estonia):
        found = changes(estonia, bundle(pems, party("AP_EE_01", "ap_ee_01.pem", "https://new.example/as4")))
        assert shown(found) == [("changed", "AP_EE_01", ["endpoint"])] and found.legs == () == found.certificates
        assert found.parties[0].fields[0] == Difference("endpoint", "https://ap.example/as4", "https://new.example/as4")

    def test_a_certificate(self, pems, estonia):
        found = changes(estonia, bundle(pems, party("AP_EE_01", "ap_fi_01.pem")))
        assert shown(found) == [("changed", "AP_EE_01", ["signing", "encryption"])]
        assert sorted((c.use, c.change) for c in found.certificates) == [
            ("encrypt", "gone"), ("encrypt", "new"), ("sign", "gone"), ("sign", "new")]  # fmt: skip
        before = found.parties[0].fields[0].before
        assert before[0].startswith("sha256:") and before[0] != found.parties[0].fields[0].after[0]

    def test_one_that_ends_soon_is_told_though_nothing_changes(self, pems):
        one = bundle(pems, party("AP_EE_01", "soon.pem"))
        found = changes(one, one)
        assert not found and {(c.change, c.days) for c in found.certificates} == {("expiring", 20)}

    def test_terms_field_by_field(self, pems, estonia):
        found = changes(estonia, bundle(pems, party("AP_EE_01", "ap_ee_01.pem"), top='retry = { count = 9 }\ncompress = false'))
        assert found.parties == () and {leg.change for leg in found.legs} == {"changed"}
        assert {f.field for leg in found.legs for f in leg.fields} == {"retry.count", "compress"}

    def test_every_field_of_party_and_leg_is_compared(self, estonia):
        """Whatever parameter is added to the model: a change of it is seen."""
        pmodes = expanded(estonia)
        leg = next(leg for leg in pmodes.legs if pmodes.is_self(leg.from_party.party_id))
        for subject, names in ((leg, leg.__struct_fields__), (leg.to_party, leg.to_party.__struct_fields__)):
            for name in names:
                if name in ("pmode_id", "number", "from_party", "to_party", "party_id"):
                    continue  # who and which: told as another party or leg
                value = getattr(subject, name)
                special = {"trust": PathTrust((b"other",))} | dict.fromkeys(
                    ("encryption", "tls_ca", "next", "previous", "next_encryption"), b"other")
                plain = (b"other",) if isinstance(value, tuple) else not value if isinstance(value, bool) else "other"
                other = special.get(name, plain)
                made = msgspec.structs.replace(subject, **{name: other})
                if subject is leg:
                    after = msgspec.structs.replace(pmodes, legs=tuple(made if one is leg else one for one in pmodes.legs))
                else:
                    after = msgspec.structs.replace(pmodes, legs=tuple(
                        msgspec.structs.replace(one, to_party=made) if one.to_party == subject else one for one in pmodes.legs))
                    after = msgspec.structs.replace(after, legs=tuple(
                        msgspec.structs.replace(one, from_party=made) if one.from_party == subject else one for one in after.legs))
                assert compare(pmodes, after, now=NOW), name

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_what_is_added_one_way_is_removed_the_other(self, pems, data):
        names = ["AP_EE_01", "AP_FI_01", "AP_FR_01", "AP_SE_01"]
        chosen = st.dictionaries(st.sampled_from(names), st.tuples(
            st.sampled_from(["ap_ee_01.pem", "ap_fi_01.pem"]), st.sampled_from(["https://a.example/as4", "https://b.example/as4"])))
        one, other = (
            bundle(pems, *(party(name, *what) for name, what in sorted(data.draw(chosen).items()))) for _ in range(2)
        )
        there, back = changes(one, other), changes(other, one)
        mirror = {"added": "removed", "removed": "added", "changed": "changed", "new": "gone", "gone": "new"}
        for name, key in (("parties", lambda c: c.name), ("legs", lambda c: (c.pmode_id, c.number)),
                          ("certificates", lambda c: (c.party, c.use, c.sha256))):
            forth = {(key(c), c.change) for c in getattr(there, name)}
            assert forth == {(key(c), mirror[c.change]) for c in getattr(back, name)}, name
        assert bool(there) == (expanded(one) != expanded(other))


# -- plan, apply, roll back ---------------------------------------------------------------


@pytest.fixture
async def store():
    return MemoryStore(SystemClock())


async def apply(store, what, base, **more):
    return await agreements.apply(store, what, base=base, author="anna", reason="because", **more)


async def test_plan_on_nothing_and_on_the_same(store, estonia):
    first = await planning.plan(store, estonia)
    assert first.base == 0 and first.id == f"0-{estonia.digest[:12]}" and not first.same_files
    assert [p.change for p in first.changes.parties] == ["added", "added"]
    assert (await apply(store, estonia, 0)).revision.state == "ACTIVE"
    again = await planning.plan(store, estonia)
    assert again.same_files and not again.changes and again.base == 1 and again.id != first.id


async def test_plans_and_applications_in_any_order(store, pems):
    """A plan holds for the base it was made on, and for no other."""
    made = [bundle(pems, party("AP_EE_01", "ap_ee_01.pem", f"https://{n}.example/as4")) for n in range(4)]
    plans = [await planning.plan(store, one) for one in made[:2]]
    assert (await apply(store, made[0], plans[0].base)).revision.number == 1
    with pytest.raises(StalePlan):
        await apply(store, made[1], plans[1].base)
    for number, one in enumerate(made[1:], 1):
        plan = await planning.plan(store, one)
        assert (await apply(store, one, plan.base)).revision.number == number + 1
        assert not (await planning.plan(store, one)).changes
    back = await agreements.earlier(store, 2)
    restored = await apply(store, agreements.bundle_of(back, made[0].base), 4, restores=2)
    assert restored.revision.sha256.hex() == made[1].digest and restored.revision.number == 5
    assert (await agreements.earlier(store, None)).number == 4
    assert await agreements.drift(store, made[1]) is None
    assert await agreements.drift(store, made[0]) == "the files are those of revision 1, in force is revision 5"
    assert "are not those of revision 5" in await agreements.drift(store, bundle(pems))


async def test_nothing_to_go_back_to(store, estonia):
    with pytest.raises(NotFound):
        await agreements.earlier(store, None)
    await apply(store, estonia, 0)
    with pytest.raises(NotFound):
        await agreements.earlier(store, None)
    with pytest.raises(NotFound, match="no revision 7"):
        await agreements.earlier(store, 7)
    await store.beat(Beat(id=uuid4(), node="lv", place="0", revision=1))
    await store.propose_agreements(NewRevision(base=1, content=b"x", author="a", reason="b"))
    await store.withdraw_agreements(2, actor="a", why="b")
    with pytest.raises(NotFound, match="never in force"):
        await agreements.earlier(store, 2)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "two\nlines", "\x1b[31m"])
async def test_a_reason_that_is_none(store, estonia, reason):
    with pytest.raises(ConfigError, match="reason"):
        await agreements.apply(store, estonia, base=0, author="anna", reason=reason)


async def test_old_mistakes_do_not_stop_a_change_and_new_ones_do(store, pems, estonia):
    """One partner's certificate has expired; that must not keep another's from being renewed."""
    await apply(store, estonia, 0)

    def lint(files):
        text = files.agreement("a.toml")
        found = [Finding("P007", "error", f"{files.path('a.toml')}:7: parties.AP_EE_01", "expired")]
        if b"AP_FI_01" in text:
            found.append(Finding("P005", "error", f"{files.path('a.toml')}:9: parties.AP_FI_01", "new mistake"))
        return [*found, Finding("P004", "info", "x", "no error")]

    longer = bundle(pems, party("AP_EE_01", "ap_ee_01.pem", "https://new.example/as4"))
    plan = await planning.plan(store, longer, lint=lint)
    assert plan.errors == () and [f.rule for f in plan.known_errors] == ["P007"]
    plan = await planning.plan(store, bundle(pems, party("AP_FI_01", "ap_fi_01.pem")), lint=lint)
    assert [f.rule for f in plan.errors] == ["P005"]


async def test_an_active_revision_that_cannot_be_read_can_be_replaced(store, estonia):
    await apply(store, estonia, 0)
    await apply(store, Bundle(("a.toml",), {"a.toml": b"what a newer release writes"}), 1)
    plan = await planning.plan(store, estonia)
    assert plan.base == 2 and "revision 2 cannot be read here" in plan.notes[0]
    assert [p.change for p in plan.changes.parties] == ["added", "added"]
    assert (await apply(store, estonia, 2)).revision.state == "ACTIVE"


async def test_messages_in_flight_by_partner(store, pems, estonia):
    await apply(store, estonia, 0)
    leg = next(leg for leg in expanded(estonia).legs if leg.to_party.name == "AP_EE_01")
    from gateway.msh.rooms import party_key

    for _ in range(3):
        await store.submit_once(outbound(receiver=party_key(leg.to_party.party_id), pmode_id=leg.pmode_id, pmode_revision=1))
    await store.submit_once(outbound(receiver="urn:gone:AP_XX", pmode_id="x", pmode_revision=9))
    plan = await planning.plan(store, estonia)
    assert [(f.partner, f.count, f.movable, f.why) for f in plan.in_flight] == [
        ("AP_EE_01", 3, 3, ()), ("urn:gone:AP_XX", 1, 0, ())]  # fmt: skip
    plan = await planning.plan(store, bundle(pems, party("AP_FI_01", "ap_fi_01.pem")))
    assert next((f.partner, f.count, f.movable, f.why) for f in plan.in_flight) == (
        "AP_EE_01", 3, 0, ("party removed", "exchange removed"))  # fmt: skip
    plan = await planning.plan(store, bundle(pems, party("AP_EE_01", "ap_ee_01.pem"), top="compress = false"))
    assert next((f.partner, f.movable, f.why) for f in plan.in_flight) == ("AP_EE_01", 3, ("exchange changed",))


async def test_who_does_not_follow_is_named(store, estonia, pems):
    """Active, and one living process cannot serve it."""
    await apply(store, estonia, 0)
    one = Beat(id=uuid4(), node="ee2", place="1", revision=1)

    class Looks:
        async def __call__(self):
            standing = await store.beat(one if not standing_two else msgspec.structs.replace(one, trouble="revision 2: no key"))
            if standing.proposed:
                await store.acknowledge_agreements(standing.proposed, one, None)
                standing_two.append(True)

    standing_two: list[bool] = []
    outcome = await apply(store, bundle(pems, party("AP_EE_01", "ap_ee_01.pem", "https://new.example/as4")), 1, look=Looks())
    assert outcome.revision.state == "ACTIVE" and [(p.node, p.trouble) for p in outcome.behind] == [("ee2", "revision 2: no key")]
