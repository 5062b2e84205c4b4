"""`gateway send`: submit a message through the plugin API and wait for its receipt."""

import sys
from pathlib import Path

import click

from gateway.cli.output import json_option, show_json

#: Media types by file ending; anything else is octet-stream unless `FILE,TYPE` says otherwise.
TYPES = {".xml": "application/xml", ".pdf": "application/pdf", ".json": "application/json", ".txt": "text/plain",
         ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}  # fmt: skip


@click.command()
@click.argument("files", nargs=-1)
@click.option("--to", "to_party", help="The receiving party's id; without it, it is discovered.")
@click.option("--to-type", help="Its type, where the id alone is not unique.")
@click.option("--action", required=True)
@click.option("--service", help="Only needed when several services have that action.")
@click.option("--service-type")
@click.option("--from", "from_party", help="Our party; only needed when we have several.")
@click.option("--prop", "properties", multiple=True, metavar="NAME=VALUE", help="Message property, repeatable. "
              "NAME@TYPE=VALUE gives it a type.")
@click.option("--conversation", help="ConversationId; made by the gateway when left out.")
@click.option("--message-id", help="MessageId; made by the gateway when left out.")
@click.option("--wait", type=click.FloatRange(0, 600), default=30.0, show_default=True,
              help="Seconds to wait for the receipt; 0 returns once the message is stored.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent and what the rules say about it; send nothing.")
@click.option("--url", envvar="GATEWAY_URL", default="http://127.0.0.1:8081", show_default=True,
              help="The plugin API. [GATEWAY_URL]")
@click.option("--token", envvar="GATEWAY_TOKEN", help="API token. [GATEWAY_TOKEN]")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="CA of the plugin API's certificate.")
@json_option
def send(files, to_party, to_type, action, service, service_type, from_party, properties, conversation, message_id,
         wait, dry_run, url, token, token_file, ca, as_json):
    """Send FILES (FILE or FILE,MEDIATYPE; the leading document first) and wait for the receipt.

    Exit status 0: acknowledged (or stored, with --wait 0), 7: the partner refused or could not be reached, 8: no
    receipt yet. With --dry-run, 3: a rule is broken.

    \b
    gateway send --to AP_EE_01 --action ExecuteQueryRequest request.xml,application/x-ebrs+xml
    """
    from gateway.client import GatewayClient, Part
    from gateway.errors import ConfigError

    if token_file is not None:
        token = token_file.read_text().strip()
    if not token:
        raise ConfigError("no API token", key="--token", hint="set GATEWAY_TOKEN; `gateway backends create` makes one")
    parts = [Part(*_part(item)) for item in files]
    more = {
        "service": service,
        "service_type": service_type,
        "conversation_id": conversation,
        "message_id": message_id,
        "from_party": {"id": from_party} if from_party else None,
    }
    client = GatewayClient(url, token, ca=ca)
    wanted = {
        "to_party": {"id": to_party, **({"type": to_type} if to_type else {})} if to_party else None,
        "action": action,
        "parts": parts,
        "properties": [_property(item) for item in properties],
        **{name: value for name, value in more.items() if value},
    }
    if dry_run:
        _show_dry_run(client.validate(**wanted), as_json)
    submitted = client.submit(**wanted)
    try:
        message = client.wait(submitted["id"], timeout=wait) if wait else client.message(submitted["id"])
    except TimeoutError:
        message = client.message(submitted["id"])
    if as_json:
        show_json(message)
    else:
        click.echo(f"{message['state']}  {message['message_id']}")
        _show_findings(message)
        if message.get("error_code"):
            click.echo(f"{message['error_code']}  {message.get('error_detail', '')}", err=True)
    state = message["state"]
    sys.exit(0 if state == "ACKNOWLEDGED" or not wait else 7 if state == "FAILED" else 8)


def _show_dry_run(found: dict, as_json: bool):
    """Print what would be sent, and end."""
    if as_json:
        show_json(found)
    else:
        line = f", line {found['line']}" if "line" in found else ""
        click.echo(f"{found['pmode']}  {found['profile']}{line}")
        for part in found.get("parts", ()):
            sizes = f"{part['size']} bytes" + (f", {part['wire_size']} compressed" if part["compressed"] else "")
            click.echo(f"  {part['cid']}  {part['mime_type']}  {sizes}")
        _show_findings(found)
        click.echo("nothing was sent", err=True)
    sys.exit(0 if found["valid"] else 3)


def _show_findings(found: dict) -> None:
    for finding in found.get("findings", ()):
        names = ", ".join(filter(None, [finding["rule"], finding.get("official")]))
        click.echo(f"{'✘' if finding['severity'] == 'fatal' else '!'} {names}: {finding['message']}", err=True)


def _part(item: str):
    """(path, media type) of `FILE` or `FILE,TYPE`."""
    name, comma, media_type = item.rpartition(",")
    path = Path(name if comma and "/" in media_type else item)
    if not path.is_file():
        raise click.BadParameter(f"{path}: no such file", param_hint="FILES")
    if comma and "/" in media_type:
        return path, media_type
    return path, TYPES.get(path.suffix.lower(), "application/octet-stream")


def _property(item: str) -> dict:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{item!r}: write NAME=VALUE or NAME@TYPE=VALUE", param_hint="--prop")
    name, _, kind = name.partition("@")
    return {"name": name, "value": value, **({"type": kind} if kind else {})}
