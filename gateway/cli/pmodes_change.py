"""`gateway pmodes plan | apply | rollback | history | diff`: how agreements change.

The files are what is written next, the database holds what is in force. Whoever runs the gateway
on the same database hears of a change there, on this machine or another.
"""

import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.changing import LINT_ERRORS, change_options
from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.pmodes import place
from gateway.cli.pmodes_shown import errors_text, process_facts, show_changes, show_outcome, show_plan, told


def reason_option(command):
    return click.option("--reason", required=True, help="Why; stands in the history and in the audit.")(command)


apply_options = change_options(
    click.option("--rebase-waiting", "move", is_flag=True,
                 help="Messages in flight go on under the new agreements, those that wait at once."),
    force=LINT_ERRORS,
)  # fmt: skip


@click.command()
@place
@json_option
@config_option
def plan(path, certs, as_json, config):
    """What applying the files would change, and for which messages in flight.

    Exit status 0: nothing, 3: something, or lint errors.
    """
    settings, bundle = _files(path, certs, config)
    found = on_database(settings, lambda store: _plan(settings, store, bundle), look_only=True)
    show_plan(found, as_json)
    sys.exit(0 if found.same_files or not (found.changes or found.errors) else 3)


@click.command()
@place
@reason_option
@apply_options
@json_option
@config_option
def apply(path, certs, config, **options):
    """Make the files the agreements in force, on every process of every node.

    Every living process loads and tests them first and says so; all change, or none. Messages in flight finish
    under the agreements they began with.

    \b
    Exit status 1: refused, 3: lint errors, 6: the plan is stale, 8: not everybody answered in time
    """
    settings, bundle = _files(path, certs, config)
    sys.exit(on_database(settings, lambda store: _change(settings, store, bundle, None, **options)))


@click.command()
@click.argument("revision", required=False, type=click.IntRange(1))
@reason_option
@apply_options
@json_option
@config_option
def rollback(revision, config, **options):
    """Put the agreements of an earlier REVISION in force again, as a new revision.

    Without REVISION it is the one before the active one. The files stay as they are:
    `gateway pmodes show --revision N --to FOLDER` writes those of a revision.
    """
    from gateway import app
    from gateway.operate import agreements

    settings = settings_of(config)

    async def back(store):
        found = await agreements.earlier(store, revision)
        bundle = agreements.bundle_of(found, app.base_of(settings))
        return await _change(settings, store, bundle, found.number, **options)

    sys.exit(on_database(settings, back))


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--before", type=click.IntRange(1), help="Only revisions before this one.")
@json_option
@config_option
def history(limit, before, as_json, config):
    """The revisions, newest first, and who serves which."""

    async def look(store):
        return await store.revisions(before=before, limit=limit), await store.processes()

    revisions, processes = on_database(settings_of(config), look, look_only=True)
    rows = [
        {"revision": r.number, "state": r.state, "at": r.settled_at or r.created_at, "author": r.author,
         "reason": r.reason, "base": r.base, "restores": r.restores, "refusal": r.refusal, "sha256": r.sha256.hex()}
        for r in revisions
    ]  # fmt: skip
    serving = [process_facts(p) for p in processes if p.alive]
    if as_json:
        show_json({"revisions": rows, "processes": serving})
        return
    show_table([{**row, "sha256": row["sha256"][:12]} for row in rows],
               ["revision", "state", "at", "author", "reason", "restores", "refusal", "sha256"])  # fmt: skip
    active = next((r.number for r in revisions if r.state == "ACTIVE"), None)
    for one in serving:
        if one["trouble"] or (active is not None and one["revision"] != active):
            why = one["trouble"] or "it follows"
            click.echo(f"! {one['process']} serves revision {one['revision']}: {why}", err=True)


@click.command()
@click.argument("old", type=click.IntRange(1))
@click.argument("new", required=False, type=click.IntRange(1))
@json_option
@config_option
def diff(old, new, as_json, config):
    """What changed from revision OLD to NEW, or to the active one. Exit status 3: something."""
    import msgspec

    from gateway import app
    from gateway.operate import agreements, changes
    from gateway.pmodes.toml import expanded

    settings = settings_of(config)

    async def look(store):
        return [
            expanded(agreements.bundle_of(await _numbered(store, number), app.base_of(settings)))
            for number in (old, new)
        ]

    found = changes.compare(*on_database(settings, look, look_only=True))
    if as_json:
        show_json(msgspec.to_builtins(found))
    elif found:
        show_changes(found)
    sys.exit(3 if found else 0)


def revision_files(config: Path | None, number: int | str) -> Any:
    """The files of a revision, or of the one that is `active`. Raises `NotFound`."""
    from gateway import app
    from gateway.operate import agreements

    settings = settings_of(config)
    wanted = None if number == "active" else number
    found = on_database(settings, lambda store: _numbered(store, wanted), look_only=True)
    return agreements.bundle_of(found, app.base_of(settings))


def write_files(bundle: Any, folder: Path) -> None:
    """The files of a revision into `folder`, which is new or empty. Raises `ConfigError`."""
    from gateway.errors import ConfigError

    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError("is not empty", file=str(folder), hint="name a new folder; nothing is written over")
    for name, octets in bundle.files.items():
        target = (folder / name).resolve()
        if not target.is_relative_to(folder.resolve()):
            # Named from elsewhere (`../certs/…`); it is found beside the agreements under its last name only by hand.
            click.echo(f"! {name} lies outside the folder and is written as {Path(name).name}", err=True)
            target = folder.resolve() / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(octets)


# -- doing it ----------------------------------------------------------------------------


async def _plan(settings: Any, store: Any, bundle: Any) -> Any:
    from gateway import app
    from gateway.operate import plan

    return await plan.plan(store, bundle, lint=lambda files: app.lint_pmodes(settings, path=files))


async def _change(
    settings: Any, store: Any, bundle: Any, restores: int | None, *, reason: str, yes: bool, dry_run: bool,
    plan_id: str | None, move: bool, force: bool, timeout: float, as_json: bool,
) -> int:  # fmt: skip
    """Plan, ask, apply; the exit status."""
    from gateway import app
    from gateway.errors import StalePlan
    from gateway.operate import agreements

    planned = await _plan(settings, store, bundle)
    if plan_id is not None and plan_id != planned.id:
        raise StalePlan(f"the plan is {planned.id} by now, not {plan_id}: look at it again")
    refused = bool(planned.errors) and not force
    if dry_run or refused or not as_json:
        show_plan(planned, as_json)
    if refused:
        click.echo(f"error: {errors_text(planned.errors)}", err=True)
        return 3
    if dry_run:
        return 0
    if planned.same_files:
        moved = await agreements.move_waiting(store, planned.base, bundle, actor=actor(settings)) if move else 0
        if as_json:
            show_json({"plan": planned.id, "revision": planned.base, "state": "ACTIVE", "moved": moved})
        else:
            click.echo(f"nothing to change: revision {planned.base} is in force" + (f", {moved} moved" if move else ""))
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; --yes applies without asking")
        click.confirm("Apply this?", abort=True, err=True)
    if not any(p.alive for p in await store.processes()):
        app.self_test(settings, bundle)  # nobody else does, and the next start would fail
    outcome = await agreements.apply(
        store, bundle, base=planned.base, author=actor(settings), reason=reason, restores=restores,
        notes={"forced": errors_text(planned.errors)} if planned.errors else None, patience=timeout, move=move,
        told=None if as_json else told,
    )  # fmt: skip
    return show_outcome(planned, outcome, as_json)


# -- where it is kept --------------------------------------------------------------------


def _files(path: Path | None, certs: Path | None, config: Path | None) -> tuple[Any, Any]:
    """The configuration, and the files as a revision would have them. Raises `ConfigError`."""
    import msgspec

    from gateway import app

    settings = settings_of(config)
    settings = msgspec.structs.replace(settings, pmodes=path or settings.pmodes, certs=certs or settings.certs)
    return settings, app.load_bundle(settings)


async def _numbered(store: Any, number: int | None) -> Any:
    """A revision by its number, or the active one. Raises `NotFound`."""
    from gateway.errors import NotFound

    found = await (store.active_agreements() if number is None else store.revision(number))
    if found is None:
        raise NotFound("no revision is in force" if number is None else f"no revision {number}")
    return found
