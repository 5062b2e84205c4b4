"""Agreements and messages made up by Hypothesis, small enough to meet each other often."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import strategies as st

from gateway.as4.units import AgreementRef, PartyId, Property, Service, UserMessage
from gateway.config.strict import build
from gateway.pmodes.agreements import Document, File

OURS = ("urn:a", "urn:o")
PARTNERS = ("urn:b", "urn:c", "B", "b")
TYPE = "urn:type"
SERVICES = (("urn:s", None), ("S", "urn:t"), ("S", "urn:u"))
ACTIONS = ("One", "Two", "one")
ROLES = ("buyer", "seller")
AGREEMENTS = (None, "urn:g", "urn:h")
CHANNELS = (None, "urn:m")

terms = st.fixed_dictionaries(
    {},
    optional={
        "backend": st.sampled_from(["rest", "other"]),
        "compress": st.booleans(),
        "retry": st.fixed_dictionaries({}, optional={"first": st.just("2m"), "count": st.integers(0, 9), "window": st.just("9h")}),
        "max_part": st.sampled_from(["1MiB", 4096]),
        "closed_properties": st.booleans(),
        "properties": st.sampled_from([["p"], ["p", {"name": "q", "required": False}]]),
    },
)


@st.composite
def exchanges(draw):
    service, service_type = draw(st.sampled_from(SERVICES))
    made = {
        "service": service, "action": draw(st.sampled_from(ACTIONS)),
        "from_role": draw(st.sampled_from(ROLES)), "to_role": draw(st.sampled_from(ROLES)),
        "direction": draw(st.sampled_from(["both", "send", "receive"])), **draw(terms),
    }  # fmt: skip
    if service_type:
        made["service_type"] = service_type
    if agreement := draw(st.sampled_from(AGREEMENTS)):
        made["agreement"] = agreement
    if mpc := draw(st.sampled_from(CHANNELS)):
        made["mpc"] = mpc
    if draw(st.integers(0, 4)) == 0:
        made |= {"mep": "two-way-push-and-push", "reply": {"action": "Answer", **draw(terms)}}
    made["id"] = "-".join([made["action"], service[-1], (service_type or "x")[-1], made["from_role"][0] + made["to_role"][0],
                           (agreement or "n")[-1], (mpc or "d")[-1]])  # fmt: skip
    return made


def party(name: str) -> dict:
    return {"endpoint": f"https://{name[-1].lower()}.example/as4"} | ({} if ":" in name else {"type": TYPE})


@st.composite
def files(draw):
    """The tables of one agreement file."""
    own = draw(st.sampled_from(OURS))
    partners = draw(st.lists(st.sampled_from(PARTNERS), min_size=1, max_size=3, unique=True))
    made = draw(st.lists(exchanges(), min_size=1, max_size=4, unique_by=lambda e: e["id"]))
    overrides = {}
    if draw(st.booleans()):
        key = draw(st.sampled_from([f"*:{made[0]['id']}", partners[0], f"{partners[0]}:{made[0]['id']}"]))
        overrides[key] = draw(terms)
    return {
        "profile": "edelivery-as4/1.15-two-corner", "self": own,
        "parties": {name: party(name) for name in (own, *partners)},
        "exchanges": made, "overrides": overrides, **draw(terms),
    }  # fmt: skip


def documents(tables: list[dict]) -> list[Document]:
    """Raises `ConfigError`."""
    return [
        Document(Path(f"/x/{n}.toml"), build(raw, File, file=f"/x/{n}.toml", base=Path("/x")))
        for n, raw in enumerate(tables)
    ]


def _party_id(name: str) -> PartyId:
    return PartyId(name, None if ":" in name else TYPE)


@st.composite
def messages(draw):
    """A header; often one that some agreement has, or nearly."""
    people = st.sampled_from([*map(_party_id, OURS + PARTNERS), PartyId("urn:b", TYPE), PartyId("urn:nobody")])
    agreement = draw(st.sampled_from((*AGREEMENTS, "urn:k")))
    return UserMessage(
        message_id="m@x", timestamp=datetime(2026, 1, 1, tzinfo=UTC), conversation_id="c",
        from_party=draw(people), to_party=draw(people),
        from_role=draw(st.sampled_from(ROLES)), to_role=draw(st.sampled_from(ROLES)),
        service=Service(*draw(st.sampled_from(SERVICES))), action=draw(st.sampled_from((*ACTIONS, "Answer", "Three"))),
        agreement_ref=AgreementRef(agreement) if agreement else None, mpc=draw(st.sampled_from(CHANNELS)),
        properties=tuple(Property(name, "v") for name in draw(st.sampled_from([(), ("p",), ("p", "q"), ("z",)]))),
    )  # fmt: skip
