"""`gateway certs ping | announce`: are partners ready for our next certificate, and telling them of it."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli.certs_shown import matrix_facts, show_matrix
from gateway.cli.local import actor, config_option, on_database, settings_of
from gateway.cli.output import json_option, show_json

key_option = click.option("--key", "name", metavar="KEY", help="Id or fingerprint; without it the one that waits.")


@click.command()
@click.argument("parties", nargs=-1, metavar="[PARTY…]")
@key_option
@click.option("--show", "only_show", is_flag=True, help="Ask nobody; show what is known.")
@click.option("--parallel", type=click.IntRange(1, 64), default=16, show_default=True, help="So many at once.")
@click.option("--timeout", type=click.FloatRange(1, 600), default=30.0, show_default=True,
              help="Seconds to wait for the connection, and again for the answer.")
@json_option
@config_option
def ping(parties, name, only_show, parallel, timeout, as_json, config):
    """Ask partners, by a message of the test service signed with the next certificate, whether they take it.

    green: a receipt came back. amber: it refuses this certificate and takes the one in use. unknown: no answer, or
    one that says nothing about certificates. The answers are kept; `promote` goes by them for a week.

    \b
    Exit status 0: all are green, 3: somebody is amber, 5: no such key or partner, 7: somebody is unknown

    \b
    gateway certs ping
    gateway certs ping AP_EE_01 AP_FI_01 --key 3f2a
    """
    from gateway import app
    from gateway.operate import certificates, key_files, rotation

    settings = settings_of(config)

    async def run(store):
        have, pmodes = await certificates.held(store), await app.agreed(settings, store)
        key = rotation.next_key(have, name)
        if not only_show:
            await _ask(settings, store, have, pmodes, key, parties, parallel, timeout, quiet=as_json)
        files = key_files.signing(settings)
        rows = await rotation.matrix(store, have, pmodes, key, now=datetime.now(UTC), files=files)
        return key, [row for row in rows if not parties or {row.party, row.party_id} & set(parties)]

    key, rows = on_database(settings, run)
    if as_json:
        show_json({"key": key.id, "fingerprint": key.fingerprint, "partners": [matrix_facts(row) for row in rows]})
    else:
        click.echo(f"{key.id} {key.algorithm} sha256:{key.fingerprint}")
        show_matrix(rows)
    verdicts = {row.verdict for row in rows if row.asked} if "sign" in key.states else set()
    sys.exit(3 if "amber" in verdicts else 7 if verdicts - {"green"} else 0)


async def _ask(settings, store, have, pmodes, key, parties, parallel, timeout, *, quiet):
    import logging

    from gateway import app
    from gateway.operate import rotation
    from gateway.transport.client import Timeouts

    logging.getLogger("gateway").setLevel(logging.CRITICAL)  # what happens is shown, not logged
    timeouts = Timeouts(connect=timeout, idle=timeout, answer=timeout)
    rooms = app.trial(settings, pmodes, timeouts=timeouts, keyring=await app.own_keyring(settings, store))
    try:
        await rotation.ask(
            store, rooms, pmodes, key, app.open_signer(settings, key), actor=actor(settings), parties=parties,
            parallel=parallel, told=(lambda one: None) if quiet else _told,
        )  # fmt: skip
    finally:
        await rooms.client.close()
        rooms.cpu.close()


def _told(one) -> None:
    """Each answer as it comes, on standard error."""
    from gateway.log import printable

    click.echo(printable(f"{one.party}: {one.verdict}, {one.why}", 500), err=True)


@click.command()
@click.argument("parties", nargs=-1, metavar="[PARTY…]")
@click.option("--key", "names", multiple=True, metavar="KEY",
              help="Id or fingerprint; may be given several times. Without it the signing key that waits.")
@click.option("--by", "ways", multiple=True, type=click.Choice(["agreement-update", "package"]),
              help="How. Default: an agreement update where the agreement with a partner has it, else the package.")
@click.option("--to", "target", type=click.Path(path_type=Path),
              help="Folder for the package, or a file that ends in .zip.")
@click.option("--contact", required=True, help="Whom partners may ask: a name, an address, a telephone number.")
@click.option("--begins", type=click.DateTime(["%Y-%m-%d"]), help="The day from which the certificate is used (UTC).")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
@config_option
def announce(parties, names, ways, target, contact, begins, yes, as_json, config):
    """Tell partners (all, or these) of our next certificates, and note that in the ledger.

    Partners whose agreement has `updates` are asked by a message (`gateway parties updates list` shows what they
    answer). For the others it writes a package to hand over: the certificate as PEM, what changes and what to do in
    Latvian and English, and a signature made with the certificate in use, which partners check with openssl.

    \b
    Exit status 1: refused, 5: no such key or partner, 6: something else is changing the keys
    """
    from gateway import app
    from gateway.operate import announcing, certificates, rotation
    from gateway.operate.updates.means import ByAgreementUpdate

    if ways and ("package" in ways) is not (target is not None):
        raise click.UsageError("--by package and --to FOLDER go together")
    settings = settings_of(config)
    begins = begins.replace(tzinfo=UTC) if begins is not None else None

    async def run(store):
        have, pmodes, now = await certificates.held(store), await app.agreed(settings, store), datetime.now(UTC)
        keys = [rotation.next_key(have, name) for name in names] if names else [rotation.next_key(have)]
        rows = await rotation.matrix(store, have, pmodes, keys[0], now=now)
        rows = rotation.those(rows, parties)
        party, signer = app.signs_today(await app.own_keyring(settings, store), pmodes, keys[0])
        made = announcing.announcement_of(have, keys, party=party, contact=contact, now=now, begins=begins)
        means = []
        if not ways or "agreement-update" in ways:
            means.append(ByAgreementUpdate(store, pmodes, host=settings.node.host, actor=actor(settings)))
        if target is not None:
            means.append(announcing.Package(target, signer))
        announcing.check_reached(pmodes, rows, means)
        if not yes:
            _confirm(keys, rows)
        told = await announcing.announce(store, pmodes, rows, keys, made, means, actor=actor(settings))
        plan = announcing.plan_announce(have, keys)
        if not plan.nothing:
            await certificates.apply(store, plan, author=actor(settings), reason=f"announced to {len(told)} partners",
                                     test=lambda ring: app.test_ring(settings, store, ring))  # fmt: skip
        return keys, told

    keys, told = on_database(settings, run)
    if as_json:
        show_json({"keys": [{"key": key.id, "fingerprint": key.fingerprint} for key in keys],
                   "package": str(target) if any(t.means == "package" for t in told) else None,
                   "told": [{"partner": t.party, "means": t.means, "how": t.how} for t in told]})  # fmt: skip
        return
    for one in told:
        click.echo(f"{one.party}: {one.how}")
    if any(t.means == "package" for t in told):
        click.echo("Hand it over by a way that the partner trusts; `gateway certs ping` shows who has taken it up.")


def _confirm(keys, rows) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask; --yes does it without asking")
    click.echo(f"announce {', '.join(key.id for key in keys)} to {', '.join(row.party for row in rows)}", err=True)
    click.confirm("Do this?", abort=True, err=True)
