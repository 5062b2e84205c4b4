"""How keys, plans for them and their outcome are shown: for people, and as JSON."""

from typing import Any

import click

from gateway.cli.output import show_json, show_table

COLUMNS = ["key", "use", "state", "party", "algorithm", "subject", "not_after", "chosen", "place", "fingerprint"]


def facts(one: Any) -> dict:
    """One use of a certificate of ours, as JSON has it."""
    return {name: getattr(one, name) for name in one.__struct_fields__}


def show_keys(found: list, number: int, as_json: bool) -> None:
    if as_json:
        show_json({"ring": number, "keys": [facts(one) for one in found]})
        return
    show_table(
        [{**facts(one), "fingerprint": one.fingerprint[:16], "chosen": ", ".join(one.chosen),
          "not_after": one.not_after and f"{one.not_after:%Y-%m-%d}"} for one in found], COLUMNS)  # fmt: skip


def show_one(key: Any, uses: list, as_json: bool) -> None:
    row = {
        "key": key.id, "party": key.party, "algorithm": key.algorithm, "fingerprint": key.fingerprint,
        "created_at": key.created_at, "author": key.author, "token": key.token, "chain": len(key.chain),
        "subject": uses[0].subject, "issuer": uses[0].issuer, "not_before": uses[0].not_before,
        "not_after": uses[0].not_after,
    }  # fmt: skip
    states = [{"use": one.use, "state": one.state, "since": one.since, "chosen": list(one.chosen)} for one in uses]
    if as_json:
        show_json({**row, "uses": states})
        return
    show_table([{"what": name, "value": value} for name, value in row.items()]
               + [{"what": one["use"], "value": f"{one['state']} since {one['since']:%Y-%m-%d %H:%M}"
                   + (f", chosen for {', '.join(one['chosen'])}" if one["chosen"] else "")} for one in states],
               ["what", "value"])  # fmt: skip


def show_plan(plan: Any, as_json: bool) -> None:
    if as_json:
        show_json(plan_facts(plan))
        return
    click.echo(f"plan {plan.id}, on " + (f"ring {plan.base}" if plan.base else "no ring yet"))
    for move in plan.moves:
        click.echo(f"  {move.key} {move.use:<10} {move.before} → {move.after}")
    for choice in plan.choices:
        click.echo(f"  {choice}")
    for note in plan.notes:
        click.echo(f"· {note}")
    for obstacle in plan.obstacles:
        click.echo(f"✘ {obstacle}")
    if plan.nothing:
        click.echo("nothing would change")


def plan_facts(plan: Any) -> dict:
    return {
        "plan": plan.id, "verb": plan.verb, "base": plan.base, "moves": [move._asdict() for move in plan.moves],
        "choices": list(plan.choices), "notes": list(plan.notes), "obstacles": list(plan.obstacles),
    }  # fmt: skip


def told(what: Any) -> None:
    """Progress, on standard error."""
    if isinstance(what, list):
        refused = [word for word in what if word.why]
        click.echo(f"{len(what)} processes answered" + (f", {len(refused)} refused" if refused else ""), err=True)
    else:
        click.echo(f"ring {what.number} is proposed", err=True)


def show_outcome(plan: Any, outcome: Any, as_json: bool) -> int:
    """Show what became of a plan; the exit status."""
    from gateway.log import printable

    ring = outcome.revision
    late = ring.state == "REFUSED" and (ring.refusal or "").startswith("no answer in time")
    stale = ring.state == "REFUSED" and "became active meanwhile" in (ring.refusal or "")
    if as_json:
        show_json(plan_facts(plan) | {
            "ring": ring.number, "state": ring.state, "refusal": ring.refusal, "effective_at": ring.effective_at,
            "acknowledged": [
                {"process": f"{w.node} {w.place}", "ok": w.why is None, "why": w.why} for w in outcome.words
            ],
            "behind": [
                {"process": f"{p.node} {p.place}", "ring": p.ring, "trouble": p.ring_trouble} for p in outcome.behind
            ],
        })  # fmt: skip
    elif ring.state == "ACTIVE":
        click.echo(f"ring {ring.number} is in force, tested by {len(outcome.words)} processes")
    else:
        click.echo(f"error: ring {ring.number} was refused: {printable(ring.refusal or '', 4096)}", err=True)
        click.echo("hint:  nothing has changed anywhere; mend what the processes say and try again", err=True)
    if not as_json:
        for one in outcome.behind:
            why = printable(one.ring_trouble or "it follows", 400)
            click.echo(f"! {one.node} {one.place} has ring {one.ring}: {why}", err=True)
    if ring.state == "ACTIVE":
        return 8 if outcome.behind else 0
    return 8 if late else 6 if stale else 1


MATRIX = ["party", "on", "verdict", "asked_at", "announced_at", "used_at", "encrypted_at", "why", "todo"]


def matrix_facts(row: Any) -> dict:
    """One partner and one certificate, as JSON has it."""
    return {name: getattr(row, name) for name in row.__struct_fields__}


def show_matrix(rows: Any) -> None:
    """How partners stand to a certificate."""
    days = ("asked_at", "announced_at", "used_at", "encrypted_at")
    shown = []
    for row in rows:
        verdict = (row.verdict or "not asked") if row.asked else "cannot be asked"
        times = {day: f"{at:%Y-%m-%d %H:%M}" for day in days if (at := getattr(row, day)) is not None}
        shown.append({**dict.fromkeys(days), **matrix_facts(row), **times, "verdict": verdict})
    show_table(shown, MATRIX)
