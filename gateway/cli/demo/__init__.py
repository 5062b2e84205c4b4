"""`gateway demo`: Latvia asks Estonia for a birth certificate, on this machine.

    nodes       two complete gateways: folders, keys, processes
    requester, provider, office, pages      the business software on both sides
    scenario, ledger                        the exchange, and what makes it a proof
    show, hints what is printed, and what to try next
    sweep       for nodes that do not end in time
    session     all of it together, and its end

Only the first second matters here, so this file imports next to nothing.
"""

import click


@click.command()
@click.option("--once", is_flag=True, help="End after the exchange instead of running on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else; implies --once.")
@click.option("--keep", is_flag=True, help="Leave the folder with configuration, keys, logs and database.")
@click.pass_context
def demo(context: click.Context, once: bool, as_json: bool, keep: bool) -> None:
    """Two access points exchange evidence on this machine.

    AP_LV_01 and AP_EE_01 start as real gateways, each with its own keys and database. Latvia
    asks Estonia for a birth certificate; the citizen looks at it and accepts; the PDF arrives.
    Ctrl-C ends the demo and deletes what it made.

    \b
    Exit status 0: everything was exchanged and proven, 1: it was not, 130: interrupted before that.
    """
    from gateway.cli.demo.session import Session

    context.exit(Session(once=once or as_json, as_json=as_json, keep=keep).run())
