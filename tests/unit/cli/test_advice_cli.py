"""Findings on the command line: `gateway send --dry-run`, `gateway messages show`."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from click.testing import CliRunner

from gateway.as4.findings import Finding
from gateway.backends.rest import RestBackend
from gateway.cli import messages
from gateway.cli.send import send
from gateway.plugin import DryRun, Submitted
from gateway.store.api import Message
from tests.unit.backends.listener import serving
from tests.unit.backends.memory_msh import MemoryMsh
from tests.unit.oots.test_headers import REQUEST

FINDINGS = (
    Finding("H-13", "fatal", "eb:ConversationId 'x' is not a UUID", "eb:ConversationId", "R-EDM-ebMS-017", "2.0"),
    Finding("E-05", "warning", "finalRecipient is not the provider of the document", line="2.0"),
)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """`gateway send` against a REST door whose MSH answers with these findings."""
    request = tmp_path / "request.xml"
    request.write_bytes(b"<query/>")

    def run(findings, *arguments):
        msh = MemoryMsh()

        async def validate(caller, submission, content):
            found = await MemoryMsh.validate(msh, caller, submission, content)
            return DryRun(
                valid=all(f.severity != "fatal" for f in findings), pmode="LV:LT:a", profile="oots/2.0", rules="advise",
                line="2.0", header=found.header, parts=found.parts, findings=findings,
            )  # fmt: skip

        async def submit(*given, **named):
            sent = await MemoryMsh.submit(msh, *given, **named)
            return Submitted(sent.id, sent.message_id, sent.conversation_id, sent.state, findings=findings)

        monkeypatch.setattr(msh, "validate", validate)
        monkeypatch.setattr(msh, "submit", submit)
        with serving(RestBackend(msh, {}).asgi) as url:
            options = ["--to", "AP_LT", "--action", "a", "--url", url, "--token", msh.client("alpha", "evidence")]
            result = CliRunner().invoke(send, [*options, *arguments, str(request)])
        return result, msh

    return run


def test_a_dry_run_says_what_would_be_sent(call):
    result, msh = call((), "--dry-run", "--prop", "originalSender@urn:t=C1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "LV:LT:a  oots/2.0, line 2.0"
    assert "application/xml  8 bytes" in result.stdout and "nothing was sent" in result.stderr
    assert not msh.views


def test_findings_of_a_dry_run(call):
    result, msh = call(FINDINGS, "--dry-run")
    assert result.exit_code == 3 and not msh.views
    assert result.stderr.splitlines()[:2] == [
        "✘ H-13, R-EDM-ebMS-017: eb:ConversationId 'x' is not a UUID",
        "! E-05: finalRecipient is not the provider of the document",
    ]
    assert call(FINDINGS[1:], "--dry-run")[0].exit_code == 0
    result, _ = call(FINDINGS, "--dry-run", "--json")
    assert result.exit_code == 3 and [f["rule"] for f in json.loads(result.stdout)["findings"]] == ["H-13", "E-05"]


def test_one_message_with_its_findings(monkeypatch):
    now = datetime(2026, 11, 21, tzinfo=UTC)
    document = {"kind": "request", "request_id": "urn:uuid:1", "procedure": "R1", "preview_url": "https://p/secret"}
    message = Message(
        id=uuid4(), direction="inbound", state="RECEIVED", tenant="t", partner="p", user_message=REQUEST, parts=(),
        wrapped_key=b"", pmode_id="m", pmode_revision=1, backend="rest", client=None, created_at=now, changed_at=now,
        findings=FINDINGS, document=document,
    )  # fmt: skip
    monkeypatch.setattr(messages, "on_store", lambda *_: (message, None))
    result = CliRunner().invoke(messages.group, ["show", "x"])
    assert result.exit_code == 0, result.output
    assert "rule=H-13  severity=fatal  official=R-EDM-ebMS-017  line=2.0" in result.stdout
    assert "document:         kind=request  request_id=urn:uuid:1  procedure=R1" in result.stdout
    assert "secret" not in result.stdout
    found = json.loads(CliRunner().invoke(messages.group, ["show", "x", "--json"]).stdout)
    assert [f["rule"] for f in found["findings"]] == ["H-13", "E-05"] and found["document"]["procedure"] == "R1"
