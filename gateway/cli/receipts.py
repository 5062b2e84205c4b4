"""`gateway receipts verify`: does a receipt answer a message?"""

import click

from gateway.cli.inspect import FILE, capture, inspector, key_options, show


@click.group()
def group():
    """Receipts with non-repudiation information."""


@group.command()
@click.argument("receipt", type=FILE)
@click.option("--headers", type=FILE, help="The HTTP headers of RECEIPT.")
@click.option("--message", type=FILE, required=True, help="The body of the message it answers, as sent.")
@click.option("--message-headers", type=FILE, help="The HTTP headers of the message.")
@key_options
def verify(receipt, headers, message, message_headers, truststore, password_file, profile, when, language, as_json):
    """Check a receipt's signature, and that it repeats the digests the message was signed with.

    Exit status 0: it does, 3: it does not.
    """
    from gateway.operate.inspection import verify_receipt

    judge = inspector(None, truststore, password_file, profile, when)
    show(verify_receipt(judge, capture(receipt, headers), capture(message, message_headers)), as_json, language)
