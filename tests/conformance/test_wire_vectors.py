"""Every exchange captured from phase4 4.5.4 gets the verdict its origin names, through `inspect`."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.keys.formats import read_keystore
from gateway.keys.keyring import decryption_key
from gateway.keys.trust import check_certificate
from gateway.operate.inspection import Inspector, read_headers, verify_receipt

WIRE = Path(__file__).parents[1] / "vectors" / "phase4-4.5.4-wire"
SETS = ("edelivery1-rsa2048", "edelivery2-eddsa", "edelivery2-ecdsa")
PASSWORD = b"test1234"
#: Negative exchanges and the codes that are right for them; the first is ours.
REFUSED = {
    "ciphertext-bit-flipped": {"EBMS:0102"},
    "messaging-header-changed": {"EBMS:0101"},
    "signature-value-changed": {"EBMS:0101"},
    "encrypted-for-another": {"EBMS:0102"},
    "signature-wrapping-messaging": {"EBMS:0009", "EBMS:0101", "EBMS:0103"},
    "two-messaging-headers": {"EBMS:0009"},
    "extra-unsigned-attachment": {"EBMS:0007", "EBMS:0103"},
    "unsigned-unencrypted": {"EBMS:0103"},
    "unsigned-no-corner-properties": {"EBMS:0103"},
    "unsigned-bad-gzip": {"EBMS:0103"},
    "unsigned-compressed-without-mimetype": {"EBMS:0103"},
    "doctype-external-entity": {"EBMS:0009"},
    "not-xml": {"EBMS:0009"},
    "empty-body": {"EBMS:0007"},
    "content-type-text-plain": {"EBMS:0007"},
    "other-profile-other-ca": {"EBMS:0101"},
}
POSITIVE = sorted(p for s in SETS for p in (WIRE / s).glob("*.request.body")) + sorted(
    p for s in SETS for p in (WIRE / s / "negative").glob("duplicate-*.request.body"))
NEGATIVE = sorted(p for s in SETS for p in (WIRE / s / "negative").glob("*.request.body") if "duplicate" not in p.name)


def name(path: Path) -> str:
    return str(path.relative_to(WIRE)).removesuffix(".request.body")


def key_set(path: Path) -> Path:
    return WIRE / path.relative_to(WIRE).parts[0] / "keys"


def inspector(path: Path, owner: str = "b") -> Inspector:
    keys = key_set(path)
    entries = read_keystore((keys / f"{owner}.p12").read_bytes(), PASSWORD)
    return Inspector(
        decryption_keys=[k for e in entries if e.private_key is not None and (k := decryption_key(e))],
        trusted=[e.certificate for e in read_keystore((keys / "trust.p12").read_bytes(), PASSWORD)],
        trust=lambda der: check_certificate(der, use="sign", now=datetime.now(UTC)),
    )


def capture(path: Path) -> tuple[str, bytes]:
    headers = read_headers(path.with_suffix(".headers").read_bytes())
    return headers.get("content-type", ""), path.read_bytes()


def test_there_is_something_to_judge():
    assert len(POSITIVE) >= 30 and {p.name.removesuffix(".request.body") for p in NEGATIVE} == set(REFUSED)


@pytest.mark.parametrize("path", POSITIVE, ids=name)
def test_positive_requests_are_accepted(path):
    import hashlib

    conclusion = inspector(path).inspect(*capture(path))
    assert conclusion.verdict == "accepted", conclusion.error
    assert all(r.ok for r in conclusion.references)
    payloads = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (WIRE / "payloads").iterdir()}
    payloads.add(hashlib.sha256(b"").hexdigest())
    if "plain-xml-needs-c14n" not in path.name and "duplicate" not in path.name:
        assert {p.sha256 for p in conclusion.payloads} <= payloads


@pytest.mark.parametrize("path", NEGATIVE, ids=name)
def test_negative_requests_are_refused(path):
    conclusion = inspector(path).inspect(*capture(path))
    assert conclusion.verdict == "refused"
    assert conclusion.error.code in REFUSED[path.name.removesuffix(".request.body")]
    assert conclusion.payloads == []


ANSWERED = [p for p in POSITIVE if p.with_name(p.name.replace("request", "response")).exists()
            and "keyref-ENC-X509_SKI" not in p.name and "duplicate-second" not in p.name]


@pytest.mark.parametrize("path", ANSWERED, ids=name)
def test_responses_are_receipts_for_their_requests(path):
    response = path.with_name(path.name.replace("request", "response"))
    conclusion = verify_receipt(inspector(path), capture(response), capture(path))
    assert conclusion.verdict == "accepted", conclusion.error


def test_a_receipt_does_not_fit_another_message():
    folder = WIRE / "edelivery1-rsa2048"
    conclusion = verify_receipt(
        inspector(folder / "gzip-xml.request.body"),
        capture(folder / "two-parts.response.body"), capture(folder / "gzip-xml.request.body"))
    assert (conclusion.verdict, conclusion.error.code) == ("refused", "EBMS:0302")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "gateway", *arguments], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], timeout=60)


def test_the_command_says_the_same(tmp_path):
    (tmp_path / "pw").write_bytes(PASSWORD + b"\n")
    folder = WIRE / "edelivery1-rsa2048"
    keys = ("--truststore", str(folder / "keys" / "trust.p12"), "--password-file", str(tmp_path / "pw"), "--json")
    ours = ("--keystore", str(folder / "keys" / "b.p12"))
    body, headers = folder / "gzip-xml.request.body", folder / "gzip-xml.request.headers"
    good = run("inspect", str(body), "--headers", str(headers), *ours, *keys)
    assert good.returncode == 0, good.stderr
    found = json.loads(good.stdout)
    assert found["verdict"] == "accepted" and found["error"] is None
    assert {"message_id", "signer", "references", "payloads"} <= set(found)
    assert set(found["payloads"][0]) == {"cid", "mime", "size", "sha256"}
    bad = run("inspect", str(folder / "negative" / "signature-value-changed.request.body"), "--headers",
              str(folder / "negative" / "signature-value-changed.request.headers"), *ours, *keys)
    assert bad.returncode == 3 and json.loads(bad.stdout)["error"]["code"] == "EBMS:0101"
    assert run("inspect", str(body)).returncode == 2
    assert run("inspect", str(tmp_path / "nothing"), *ours, *keys).returncode == 2
    receipt = run("receipts", "verify", str(folder / "gzip-xml.response.body"), "--headers",
                  str(folder / "gzip-xml.response.headers"), "--message", str(body), "--message-headers", str(headers), *keys)
    assert receipt.returncode == 0, receipt.stdout + receipt.stderr
