"""The table of problems, its two languages, and the translation of exceptions."""

import re

import msgspec
import pytest

from gateway.backends.rest import problems
from gateway.backends.rest.problems import KINDS, Refused, language_of, pointer, response, translate
from gateway.plugin import (
    ClaimLost,
    DeliveryDelayed,
    DiscoveryFailed,
    GatewayError,
    NotFound,
    SubmissionConflict,
    TooLarge,
)
from gateway.stages import STAGES
from tests.unit.backends.rest.conftest import refused


@pytest.mark.parametrize("slug", KINDS)
def test_every_problem_is_whole(slug):
    kind = KINDS[slug]
    assert re.fullmatch(r"GW-[12349]\d{3}", kind.code) and 400 <= kind.status < 600 and kind.stage in STAGES
    for text in (kind.title, kind.hint):
        assert text.en and text.lv and text.en != text.lv
    assert kind.status < 500 or kind.who != "backend"


def test_codes_are_used_once():
    codes = [kind.code for kind in KINDS.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("slug", KINDS)
@pytest.mark.parametrize("language", ["en", "lv"])
def test_both_languages(slug, language):
    answer = response(Refused(slug), language, "0" * 32)
    problem = msgspec.json.decode(answer.body)
    assert answer.headers["content-language"] == language and answer.headers["vary"] == "Accept-Language"
    assert problem["title"] == getattr(KINDS[slug].title, language)
    assert problem["hint"] == getattr(KINDS[slug].hint, language)


@pytest.mark.parametrize(("header", "language"), [
    ("", "en"), ("lv", "lv"), ("lv-LV,lv;q=0.9,en;q=0.8", "lv"), ("en;q=0.5, lv;q=0.6", "lv"), ("LV", "lv"),
    ("de, fr;q=0.9", "en"), ("lv;q=0", "en"), ("lv;q=abc, en;q=0.1", "en"), ("*", "en"), ("lvx", "en"),
    ("," * 10_000, "en"), ("en-GB, lv", "en"), ("de, lv;q=0.1", "lv"),
])
def test_accept_language(header, language):
    assert language_of(header) == language


async def test_the_language_of_an_answer(connect):
    http = connect(**{"Accept-Language": "lv"})
    problem = refused(await http.get("/v1/nowhere"), "not-found")
    assert problem["title"] == "Šāda resursa nav"
    http.headers.pop("authorization")
    assert refused(await http.get("/"), "unauthorized")["title"].startswith("Nepieciešama")


@pytest.mark.parametrize(("path", "expected"), [
    ("$", "#"), ("$.action", "#/action"), ("$.parts[0].mime_type", "#/parts/0/mime_type"), ("", "#"),
    ("to_party.id", "#/to_party/id"), ("parts[12]", "#/parts/12"), ("$.a/b", "#/a~1b"), ("$.a~b", "#/a~0b"),
    ("parts[].cid", "#/parts"), ("eb:Service", "#"), ("eb:PartInfo[2]", "#"),
])
def test_pointers(path, expected):
    assert pointer(path) == expected


@pytest.mark.parametrize(("error", "slug"), [
    (NotFound("message 5 of somebody else"), "not-found"),
    (ClaimLost("by worker 7"), "claim-lost"),
    (TooLarge("more than 200 MiB"), "payload-too-large"),
    (SubmissionConflict("x", field="idempotency_key"), "idempotency-key-reused"),
    (SubmissionConflict("x", field="message_id"), "message-id-conflict"),
    (SubmissionConflict("x"), "message-id-conflict"),
    (DeliveryDelayed("x"), "overloaded"),
    (DiscoveryFailed("dns", "x", temporary=True), "receiver-not-found-now"),
    (DiscoveryFailed("expired", "x"), "internal-error"),
    (GatewayError("x"), "internal-error"),
    (KeyError("x"), "internal-error"),
])
def test_exceptions(error, slug):
    assert translate(error).slug == slug
    if slug in ("not-found", "claim-lost", "internal-error", "overloaded", "receiver-not-found-now"):
        assert translate(error).detail == ""


@pytest.mark.parametrize("slug", KINDS)
async def test_every_type_is_explained_at_its_address(http, slug):
    answer = await http.get(f"/problems/{slug}")
    assert answer.status_code == 200 and answer.json()["title"]["lv"] == KINDS[slug].title.lv


async def test_types_that_are_none(http):
    refused(await http.get("/problems/nothing"), "not-found")


def test_texts_stay_in_the_table():
    """Slugs raised anywhere in the door are rows of the table, and every row is raised somewhere."""
    from pathlib import Path

    sources = "".join(path.read_text() for path in Path(problems.__file__).parent.glob("*.py"))
    raised = set(re.findall(r'(?:Refused\(|Places\([a-z.]+, |slug = |slug: str = |invalid\(error, )"([a-z-]+)"', sources))
    raised |= set(re.findall(r'else "([a-z]+-[a-z-]+)"', sources))
    assert raised == set(KINDS)
