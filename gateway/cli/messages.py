"""`gateway messages`: what happened to messages, from the store of this node."""

import click

from gateway.cli.explain import language_option, show_explanation
from gateway.cli.local import acting, config_option, on_store
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.verbs import Verb, Verbs


@click.group(cls=Verbs, verbs={
    "resend": Verb("gateway.cli.messages_act:resend", "Send messages again that are FAILED or wait."),
    "redeliver": Verb("gateway.cli.messages_act:redeliver", "Deliver messages once more."),
    "export": Verb("gateway.cli.messages_kept:export", "The evidence of a message as a zip."),
    "legal-hold": Verb("gateway.cli.messages_kept:hold", "Keep messages whatever retention says."),
    "legal-release": Verb("gateway.cli.messages_kept:release", "Let messages go that were held."),
    "legal-holds": Verb("gateway.cli.messages_kept:holds", "What is held, by whom and why."),
})  # fmt: skip
def group():
    """Messages: list, show, trace, pull, resend, redeliver, export, legal holds."""


@group.command("list")
@click.option("--direction", type=click.Choice(["inbound", "outbound"]))
@click.option("--state", help="SUBMITTED, WAITING_FOR_RETRY, READY_TO_PULL, WAITING_FOR_RECEIPT, ACKNOWLEDGED, FAILED, "
                              "RECEIVED, DELIVERED, PURGED …")
@click.option("--conversation", help="Messages of this ConversationId.")
@click.option("--action")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@json_option
@config_option
def list_(direction, state, conversation, action, limit, as_json, config):
    """The newest messages."""
    from gateway.operate import messages
    from gateway.store.api import MessageFilter

    wanted = MessageFilter(
        direction=direction, state=state, conversation_id=conversation, action=action, limit=limit
    )
    found = on_store(config, lambda store: messages.listing(store, wanted))
    rows = [_summary(message) for message in found]
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["created", "direction", "state", "from", "to", "action", "message_id"])


@group.command()
@click.argument("message")
@json_option
@config_option
def show(message, as_json, config):
    """One message: header, parts, state, error. MESSAGE is an id, a MessageId or a prefix of either."""
    from gateway.operate import messages

    async def look(store):
        found = await messages.one(store, message)
        return found, await messages.signer(store, found)

    found, signer = on_store(config, look)
    facts = _details(found) | {"signer": _signer(signer)}
    if as_json:
        show_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, list):
            click.echo(f"{name}:")
            for item in value:
                click.echo("  " + "  ".join(f"{k}={v}" for k, v in item.items() if v not in (None, "")))
        elif isinstance(value, dict):
            click.echo(f"{name + ':':<18}" + "  ".join(f"{k}={v}" for k, v in value.items()))
        elif value not in (None, ""):
            click.echo(f"{name + ':':<18}{value}")


@group.command()
@click.argument("message")
@language_option
@json_option
@config_option
def trace(message, language, as_json, config):
    """Every stage of a message with its milliseconds, attempt by attempt; and why it is not acknowledged."""
    from msgspec import to_builtins

    from gateway.operate import messages

    found = on_store(config, lambda store: messages.trace(store, message))
    explanation = messages.explanation(found, language=language)
    if as_json:
        show_json({
            **_summary(found.message),
            "steps": [_step(step) for step in found.message.steps],
            "attempts": [_attempt(attempt) for attempt in found.attempts],
            "events": found.events,
            "explanation": to_builtins(explanation),
        })  # fmt: skip
        return
    facts = _summary(found.message)
    click.echo(f"{facts['message_id']}  {facts['from']} → {facts['to']}  {facts['action']}  {facts['state']}")
    _show_steps(found.message.steps)
    for attempt in found.attempts:
        click.echo(f"attempt {attempt.number}  {attempt.started_at:%Y-%m-%d %H:%M:%S}  {attempt.outcome or 'open'}"
                   + (f"  {attempt.error_code} {attempt.error_detail}" if attempt.error_code else ""))  # fmt: skip
        _show_steps(attempt.steps)
    for event in found.events:
        click.echo(f"{event['at']:%H:%M:%S.%f}"[:-3] + f"  {event['type']}")
    if explanation is not None:
        show_explanation(explanation, language)


@group.command()
@json_option
@config_option
def pull(as_json, config):
    """Have partners asked now for the messages they hold for us, before the agreement's `pull_every` says so.

    The running gateway asks, within five seconds; this command only says that it is time.
    """
    from gateway.operate import messages

    found = on_store(config, lambda store: messages.pull(store, by=acting(config)))
    rows = [{"holder": c.holder, "puller": c.puller, "mpc": c.mpc} for c in found]
    if as_json:
        show_json(rows)
    elif rows:
        show_table(rows, ["holder", "puller", "mpc"])
    else:
        click.echo("no channel rests: none is pulled, or all are being asked at this moment")


def _show_steps(steps) -> None:
    longest = max((step.seconds for step in steps), default=0) or 1
    for step in sorted(steps, key=lambda s: s.started):
        bar = "█" * max(1, round(24 * step.seconds / longest)) if step.stage != "wait" else ""
        click.echo(f"  {step.stage:<10}{step.seconds * 1000:>10.1f} ms  {bar}{'  ' + step.error if step.error else ''}")


def _summary(message) -> dict:
    unit = message.user_message
    return {
        "id": str(message.id),
        "created": f"{message.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "direction": message.direction,
        "state": message.state,
        "from": unit.from_party.value,
        "to": unit.to_party.value,
        "action": unit.action,
        "message_id": unit.message_id,
        "conversation_id": unit.conversation_id,
    }


def _details(message) -> dict:
    unit = message.user_message
    return {
        **_summary(message),
        "service": unit.service.value,
        "service_type": unit.service.type,
        "ref_to_message_id": unit.ref_to_message_id,
        "pmode": message.pmode_id,
        "backend": message.backend,
        "attempts": message.attempts,
        "next_attempt_at": message.next_attempt_at.isoformat() if message.next_attempt_at else None,
        "receipt_at": message.receipt_at.isoformat() if message.receipt_at else None,
        "error_code": message.error_code,
        "error_detail": message.error_detail,
        "document": _document(message.document),
        "findings": [
            {"rule": f.rule, "severity": f.severity, "official": f.official, "line": f.line, "where": f.where,
             "message": f.message}
            for f in message.findings
        ],
        "properties": [{"name": p.name, "type": p.type, "value": p.value} for p in unit.properties],
        "parts": [
            {"cid": p.cid, "mime_type": p.mime_type, "size": p.size, "sha256": p.sha256.hex(),
             "compressed": p.compressed}
            for p in message.parts
        ],
    }


def _signer(signer) -> dict | None:
    """Who signed it, and what the issuer of the certificate says of it by now."""
    from gateway.cli.parties_certs import revocation_text
    from gateway.log import printable

    if signer is None:
        return None
    said = revocation_text([signer.revocation] if signer.revocation else [])
    return {"subject": printable(signer.subject, 400), "sha256": signer.sha256, "revocation": said or "not asked"}


def _document(facts: dict | None) -> dict | None:
    """What the leading document is; the whole of what is kept of it is for the API of the operator."""
    shown = ("kind", "outcome", "request_id", "response_id", "specification", "procedure", "evidence_type", "round")
    return {name: facts[name] for name in shown if name in facts} if facts else None


def _step(step) -> dict:
    return {"stage": step.stage, "started": step.started, "ms": round(step.seconds * 1000, 3), "error": step.error}


def _attempt(attempt) -> dict:
    return {
        "number": attempt.number,
        "started_at": attempt.started_at.isoformat(),
        "outcome": attempt.outcome,
        "error_code": attempt.error_code,
        "error_detail": attempt.error_detail,
        "http_status": attempt.http_status,
        "steps": [_step(step) for step in attempt.steps],
    }
