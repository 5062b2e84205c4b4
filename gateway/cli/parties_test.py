"""`gateway parties test`: is a partner reachable, and do both sides understand each other?"""

import asyncio
import sys
from pathlib import Path

import click

from gateway.cli.explain import language_option, show_explanation
from gateway.cli.local import config_option, found_config, keys_in_force
from gateway.cli.output import json_option, show_json
from gateway.cli.pmodes import revision_option

#: The worst first.
EXIT = {"failed": 7, "timeout": 8}
WORDS = {
    "en": {"verified": "receipt verified: signed by the partner, over what we sent", "refused": "receipt refused",
           "none": "no receipt"},
    "lv": {"verified": "kvīts pārbaudīta: partneris parakstījis to, ko nosūtījām", "refused": "kvīts noraidīta",
           "none": "kvīts nav"},
}  # fmt: skip


@click.command()
@click.argument("party", required=False)
@click.option("--pmodes", "path", type=click.Path(exists=True, path_type=Path),
              help="The agreement file or folder, instead of what is in force.")
@click.option("--certs", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with the certificate files that do not stand beside the agreements.")
@click.option("--all", "everybody", is_flag=True, help="Every partner we have an agreement with.")
@click.option("--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="So many at once.")
@click.option("--timeout", type=click.FloatRange(1, 600), default=60.0, show_default=True,
              help="Seconds to wait for the connection, and again for the answer.")
@revision_option
@language_option
@json_option
@config_option
def test(party, path, certs, everybody, parallel, timeout, revision, language, as_json, config):
    """Send PARTY a message of the ebMS test service and judge its receipt.

    Really signed, encrypted and sent with the keys and agreements of this node; nothing is stored here,
    nothing is delivered there, and nothing is tried again.

    Exit status 0: receipt verified, 5: no such partner, 7: the partner or the network failed, 8: timeout.

    \b
    gateway parties test AP_EE_01
    gateway parties test --all --json
    """
    from gateway import app
    from gateway.pmodes.toml import expanded
    from gateway.transport.client import Timeouts

    if everybody == bool(party):
        raise click.UsageError("say the PARTY, or --all")
    settings = app.load_config(config or found_config())
    pmodes = expanded(_files(path, certs, revision, config))
    timeouts = Timeouts(connect=timeout, idle=timeout, answer=timeout)
    found = asyncio.run(_run(settings, pmodes, keys_in_force(settings), party, timeouts, parallel, language))
    if as_json:
        import msgspec

        facts = [msgspec.to_builtins(one) for one in found]
        show_json(facts if everybody else facts[0] if len(facts) == 1 else facts)
    else:
        for one in found:
            _show(one, language)
    results = {one.result for one in found}
    sys.exit(next((status for result, status in EXIT.items() if result in results), 0))


async def _run(settings, pmodes, keyring, party, timeouts, parallel, language):
    """One result for each agreement with the partners that are meant. Raises `NotFound`."""
    import logging

    from gateway import app
    from gateway.operate.ping import legs_to, ping

    logging.getLogger("gateway").setLevel(logging.CRITICAL)  # what happens is shown, not logged
    legs = legs_to(pmodes, party)
    rooms = app.trial(settings, pmodes, timeouts=timeouts, keyring=keyring)
    gate = asyncio.Semaphore(parallel)

    async def one(leg):
        async with gate:
            return await ping(rooms, leg, language=language)

    try:
        return await asyncio.gather(*(one(leg) for leg in legs))
    finally:
        await rooms.client.close()
        rooms.cpu.close()


def _files(path, certs, revision, config):
    """The agreements that are meant: those said, else those in force, else the files."""
    from gateway.cli.pmodes import source
    from gateway.errors import NotFound, StoreUnavailable

    if path is None and revision is None:
        try:
            return source(None, None, "active", config)
        except (StoreUnavailable, NotFound) as error:
            click.echo(f"! the agreements are those of the files: {error}", err=True)
    return source(path, certs, revision, config)


def _show(found, language: str) -> None:
    from gateway.log import printable

    words = WORDS[language]
    mark = "✔" if found.result == "ok" else "✘"
    agreement = f"  {found.agreement}" if found.agreement else ""
    click.echo(printable(f"{mark} {found.party}  {found.endpoint or '-'}  {found.profile}{agreement}", 4096))
    notes = {"connect": _connected(found), "receipt": f"HTTP {found.http_status}" if found.http_status else ""}
    for timing in found.stages:
        note = timing.error or notes.get(timing.stage, "")
        click.echo(f"  {timing.stage:<10}{timing.ms:>10.1f} ms  {printable(note, 400)}".rstrip())
    signer = f" ({found.signer})" if found.signer else ""
    click.echo(f"  {words[found.receipt]}{printable(signer, 400)}")
    if found.message_id:
        click.echo(f"  MessageId {printable(found.message_id, 300)}")
    if found.code:
        click.echo(f"  {found.code}  {printable(found.detail or '', 2048)}")
    if found.explanation:
        show_explanation(found.explanation, language)


def _connected(found) -> str:
    """TLS and the time of the name look-up, as far as they are known."""
    dns = f"DNS {found.dns_ms:.1f} ms" if found.dns_ms is not None else ""
    return "  ".join(filter(None, (found.tls, dns)))
