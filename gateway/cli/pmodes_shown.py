"""How plans, changes and their outcome are shown: for people, and as JSON."""

from typing import Any

import click

from gateway.cli.output import show_json

SIGNS = {"added": "+", "new": "+", "removed": "-", "gone": "-", "changed": "~", "expiring": "!"}
#: Legs of one kind that are named.
MOST = 8


def show_plan(found: Any, as_json: bool) -> None:
    import msgspec

    if as_json:
        show_json({**msgspec.to_builtins(found), "changes_nothing": not found.changes})
        return
    click.echo(f"plan {found.id}, on " + (f"revision {found.base}" if found.base else "nothing yet"))
    for note in found.notes:
        click.echo(f"! {note}")
    if found.same_files:
        click.echo("the files are those in force")
    elif not found.changes:
        click.echo("the agreements say the same; only the files differ")
    show_changes(found.changes)
    concerned = [one for one in found.in_flight if one.why]
    if concerned:
        click.echo("messages in flight")
    for one in concerned:
        numbers = ", ".join(map(str, one.revisions))
        click.echo(f"  {one.partner}: {one.count} since {one.oldest:%Y-%m-%d %H:%M}, they finish on revision {numbers}"
                   f" ({', '.join(one.why)})"
                   + (f"; --rebase-waiting takes {one.movable} of them along" if one.movable else ""))  # fmt: skip
    others = sum(one.count for one in found.in_flight if not one.why)
    if others:
        click.echo(f"{others} other messages in flight are not concerned")
    for finding in found.errors:
        click.echo(f"✘ {finding.rule} {finding.where}: {finding.message}")
    for finding in found.known_errors:
        click.echo(f"· {finding.rule} {finding.where}: {finding.message} (in force already)")


def show_changes(changes: Any) -> None:
    from gateway.log import printable

    if changes.parties:
        click.echo("parties")
    for party in changes.parties:
        click.echo(f"  {SIGNS[party.change]} {party.name}  {party.party_id}" + ("  (ours)" if party.ours else ""))
        for field in party.fields:
            click.echo(f"      {field.field}: {_value(field.before)} → {_value(field.after)}")
    if changes.certificates:
        click.echo("certificates")
    for one in changes.certificates:
        end = "" if one.not_after is None else f"until {one.not_after:%Y-%m-%d}"
        left = f" ({one.days} days)" if one.days is not None and one.days < 60 else ""
        click.echo(f"  {SIGNS[one.change]} {one.party} {one.use:<8} sha256:{one.sha256[:16]} "
                   f"{printable(one.subject, 200)} {end}{left}")  # fmt: skip
    if changes.legs:
        click.echo("exchanges")
    for sign, text, ids in _grouped(changes.legs):
        shown = ", ".join(ids[:MOST]) + (f", … ({len(ids)} in all)" if len(ids) > MOST else "")
        click.echo(f"  {sign} {shown}" + (f": {text}" if text else ""))


def _grouped(legs: Any) -> list[tuple[str, str, list[str]]]:
    """Legs that change alike, together: one partner has a dozen."""
    groups: dict[tuple[str, str], list[str]] = {}
    for leg in legs:
        text = ", ".join(f"{f.field} {_value(f.before)} → {_value(f.after)}" for f in leg.fields)
        name = leg.pmode_id if leg.number == 1 else f"{leg.pmode_id} (leg {leg.number})"
        groups.setdefault((SIGNS[leg.change], text), []).append(name)
    return [(sign, text, ids) for (sign, text), ids in groups.items()]


def _value(value: Any) -> str:
    from gateway.log import printable

    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    text = str(value)
    return text[:23] if text.startswith("sha256:") else printable(text, 400)


def process_facts(process: Any) -> dict:
    return {"process": f"{process.node} {process.place}", "revision": process.revision, "trouble": process.trouble,
            "seen_at": process.seen_at}  # fmt: skip


def errors_text(errors: Any) -> str:
    first = errors[0]
    return f"{len(errors)} lint errors, the first: {first.rule} {first.where}: {first.message}"


def told(what: Any) -> None:
    """Progress, on standard error."""
    if isinstance(what, list):
        refused = [word for word in what if word.why]
        click.echo(f"{len(what)} processes answered" + (f", {len(refused)} refused" if refused else ""), err=True)
    else:
        click.echo(f"revision {what.number} is proposed", err=True)


def show_outcome(planned: Any, outcome: Any, as_json: bool) -> int:
    from gateway.log import printable

    revision = outcome.revision
    late = revision.state == "REFUSED" and (revision.refusal or "").startswith("no answer in time")
    stale = revision.state == "REFUSED" and "became active meanwhile" in (revision.refusal or "")
    if as_json:
        show_json({
            "plan": planned.id, "revision": revision.number, "state": revision.state, "refusal": revision.refusal,
            "acknowledged": [
                {"process": f"{w.node} {w.place}", "ok": w.why is None, "why": w.why} for w in outcome.words
            ],
            "behind": [process_facts(p) for p in outcome.behind], "moved": outcome.moved,
        })  # fmt: skip
    elif revision.state == "ACTIVE":
        words = ", ".join(f"{w.node} {w.place}" for w in outcome.words) or "no process runs"
        click.echo(f"revision {revision.number} is in force; acknowledged by: {printable(words, 2000)}")
        if outcome.moved:
            click.echo(f"{outcome.moved} messages in flight go on under it")
        for process in outcome.behind:
            name, why = f"{process.node} {process.place}", process.trouble or "no word yet"
            click.echo(f"! {name} still serves revision {process.revision}: {why}", err=True)
    else:
        click.echo(f"error: revision {revision.number} is refused, nothing changed", err=True)
        for line in (revision.refusal or "").split("; "):
            click.echo(f"  {printable(line, 2000)}", err=True)
    if revision.state == "ACTIVE":
        return 8 if outcome.behind else 0
    return 8 if late else 6 if stale else 1
