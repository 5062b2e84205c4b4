"""`gateway certs promote | rollback`: from one key to the next, for all partners or for one, and back."""

import sys
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.certs_ring import apply_plan, keys_argument, use_option
from gateway.cli.certs_shown import show_matrix
from gateway.cli.changing import PLAN_WARNINGS, change_options
from gateway.cli.local import config_option, on_database, settings_of
from gateway.cli.output import json_option

partner_option = click.option("--partner", "partners", multiple=True, metavar="PARTY",
                              help="For this partner alone; may be given several times.")  # fmt: skip
options = change_options(
    use_option, click.option("--reason", help="Why; stands in the history and in the audit."), force=PLAN_WARNINGS
)

@click.command()
@keys_argument
@partner_option
@click.option("--everybody", is_flag=True, help="Partners that are not ready, too; they will refuse what we send.")
@click.option("--threshold", type=click.IntRange(0, 100), default=100, show_default=True, metavar="PERCENT",
              help="So many of the partners that can be asked have to be green; else a --reason in words is needed.")
@options
@json_option
@config_option
def promote(keys, partners, everybody, threshold, uses, reason, config, **more):
    """Sign, and be known, with these keys from now on, on all nodes at one moment.

    Of a signing key `gateway certs ping` has asked the partners. Those that are green, or cannot be asked, move;
    those that are amber or unknown stay on the key in use. Said once more for a key that is active already, it
    moves those that have become green meanwhile. The keys that are replaced drain: they sign no more, and still
    decrypt. A partner that refuses after all goes back by itself.

    \b
    Exit status 1: refused, 3: too few are green and there is no reason of three words, or the plan has
    a warning, 5: no such key or partner, 6: the plan is stale, 8: not everybody answered in time
    """
    from gateway.errors import NotPossible
    from gateway.operate import promotion

    async def change(store, settings, have, found, rows, now):
        plan = promotion.plan_promotion(
            have, rows, found, uses, now=now, threshold=threshold / 100, partners=partners, everybody=everybody
        )
        if not more["as_json"]:
            show_matrix(rows)
            _show_moves(plan)
        try:
            promotion.check_reason(plan, reason)
        except NotPossible as refused:
            if not more["dry_run"]:
                click.echo(f"error: {refused}", err=True)
                return 3
        said = reason or f"promoted: {plan.share:.0%} of the partners are green"
        return await apply_plan(settings, store, plan.plan, reason=said, **more)

    _run(config, keys, uses, change)


@click.command()
@keys_argument
@partner_option
@options
@json_option
@config_option
def rollback(keys, partners, uses, reason, config, **more):
    """Take back a promotion, for everybody or for one partner: the keys before sign again.

    What a partner refused for these keys is signed anew and sent again, under the same MessageId.

    \b
    Exit status 1: refused, 3: the plan has a warning, 5: no such key or partner, 6: the plan is stale,
    8: not everybody answered in time
    """
    from gateway.operate import promotion

    async def change(store, settings, have, found, rows, now):
        known = await store.ledger()
        plan = promotion.plan_return(have, rows, found, uses, now=now, partners=partners, known=known)
        return await apply_plan(settings, store, plan, reason=reason or "rolled back", **more)

    _run(config, keys, uses, change)


def _run(config: Any, names: Any, uses: Any, change: Any) -> None:
    """Read keys, agreements and the ledger, then `change`; leaves with its exit status."""
    from gateway import app
    from gateway.operate import certificates, key_files, promotion, rotation

    settings = settings_of(config)

    async def read(store):
        have, now = await certificates.held(store), datetime.now(UTC)
        found = [have.find(name) for name in names]
        key, rows = promotion.signing_one(found, uses), ()
        if key is not None and key.certificate is not None:
            files = key_files.signing(settings)
            rows = await rotation.matrix(store, have, await app.agreed(settings, store), key, now=now, files=files)
        return await change(store, settings, have, found, rows, now)

    sys.exit(on_database(settings, read))


def _show_moves(plan: Any) -> None:
    from gateway.log import printable

    if plan.moved:
        click.echo(printable(f"signed for with {plan.key} from then on: {', '.join(plan.moved)}", 4000))
    if plan.left:
        click.echo(printable(f"stay where they are: {', '.join(plan.left)}", 4000))
