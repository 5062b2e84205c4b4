"""`gateway pmodes why` and `gateway pmodes schema`."""

import sys
from pathlib import Path

import click

from gateway.cli.local import config_option, on_store
from gateway.cli.output import json_option, show_json
from gateway.cli.pmodes import place, revision_option, source, text


@click.command()
@place
@revision_option
@click.option("--from", "from_party", metavar="PARTY", help="Sender: its id, or its name in the agreements.")
@click.option("--from-type", help="Type of the sender's id; \"\" for none.")
@click.option("--from-role")
@click.option("--to", "to_party", metavar="PARTY", help="Receiver: its id, or its name in the agreements.")
@click.option("--to-type", help="Type of the receiver's id; \"\" for none.")
@click.option("--to-role")
@click.option("--service")
@click.option("--service-type", help="Type of the service; \"\" for none.")
@click.option("--action")
@click.option("--agreement", help="eb:AgreementRef; \"\" for a message without one.")
@click.option("--agreement-type", help="Type of the agreement; \"\" for none.")
@click.option("--mpc")
@click.option("--property", "properties", multiple=True, metavar="NAME[=VALUE]",
              help="A message property; several times.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A captured message (MIME, with or without HTTP headers) or its envelope, instead of the options.")
@click.option("--message", help="A stored message of this node, by its id or MessageId, instead of the options.")
@click.option("--limit", type=click.IntRange(0, 50), default=5, show_default=True, help="Near misses at most.")
@json_option
@config_option
def why(path, certs, revision, file, message, limit, as_json, config, properties, **said):
    """Which leg a message matches, and which it nearly does.

    What is left out is taken to be as each leg has it. The agreements are the files at PATH, else those of the
    configuration; --revision active asks what is in force. Exit status 3 when nothing matches.

    \b
    gateway pmodes why --from AP_EE_01 --to AP_LV_01 --action ExecuteQueryRequest
    gateway pmodes why --file refused.mime --json
    """  # fmt: skip
    from gateway.as4.units import Property
    from gateway.pmodes.origin import Explained
    from gateway.pmodes.why import Question
    from gateway.pmodes.why import why as why_

    given = properties or any(value is not None for value in said.values())
    if sum(map(bool, (given, file, message))) != 1:
        raise click.UsageError("say what is known of the message, or give --file or --message")
    if file is not None:
        question = header_of(file)
    elif message is not None:
        from gateway.operate import messages

        question = on_store(config, lambda store: messages.one(store, message)).user_message
    else:
        pairs = [text.partition("=") for text in properties]
        known = tuple(Property(name, value or "?") for name, _, value in pairs) if properties else None
        question = Question(**said, properties=known)
    explained = Explained(source(path, certs, revision, config))
    answer = why_(explained.pmodes, question, limit=limit)
    facts = _facts(answer, explained)
    if as_json:
        show_json(facts)
    else:
        _show(facts)
    sys.exit(0 if answer.matches else 3)


def header_of(file: Path):
    """The header of a captured user message. Raises `ConfigError` for a file that holds none."""
    from gateway.as4.header import read_messaging
    from gateway.as4.mime import EnvelopeReady, MessageReader
    from gateway.as4.soap import read_envelope
    from gateway.as4.units import UserMessage
    from gateway.cli.inspect import capture
    from gateway.errors import ConfigError, EbmsError

    content_type, octets = capture(file, None)
    try:
        envelope, charset = octets, None
        if content_type.lower().startswith("multipart/"):
            reader = MessageReader(content_type)
            first = next((event for event in reader.feed(octets) if isinstance(event, EnvelopeReady)), None)
            if first is None:
                raise ConfigError("holds no SOAP envelope", file=str(file))
            envelope, charset = first.octets, first.charset
        unit = read_messaging(read_envelope(envelope, charset).messaging)
    except EbmsError as error:
        raise ConfigError(f"is no AS4 message: {error}", file=str(file)) from None
    if not isinstance(unit, UserMessage):
        raise ConfigError("is a signal: signals have no agreement of their own", file=str(file))
    return unit


def _facts(answer, explained) -> dict:
    return {
        "matched": bool(answer.matches),
        "refusal": answer.refusal,
        "ask": list(answer.ask),
        "matches": [
            {
                "pmode_id": match.leg.pmode_id, "leg": match.leg.number,
                "direction": _direction(match.leg, explained.pmodes), "backend": match.leg.backend,
                "refusal": match.refusal, "effective": explained.facts(match.leg),
            }
            for match in answer.matches
        ],
        "nearly": [
            {
                "pmode_id": near.leg.pmode_id, "leg": near.leg.number,
                "differs": [
                    {"parameter": d.parameter, "message": d.message, "agreement": d.agreement}
                    | ({"hint": d.hint} if d.hint else {})
                    for d in near.differs
                ],
            }
            for near in answer.nearly
        ],
    }  # fmt: skip


def _direction(leg, pmodes) -> str:
    ours = [pmodes.is_self(party.party_id) for party in (leg.from_party, leg.to_party)]
    return {(True, False): "outbound", (False, True): "inbound"}.get(tuple(ours), "both")


def _show(facts: dict) -> None:
    from gateway.log import printable

    def say(line: str) -> None:
        click.echo(printable(line, 4096))

    for match in facts["matches"]:
        say(f"✔ {match['pmode_id']} leg {match['leg']}, {match['direction']}")
        if match["refusal"]:
            say(f"  but its properties are refused: {match['refusal']}")
        for value in match["effective"]:
            say(f"    {value['name'] + ':':<22}{text(value['value'])}   ← {value['origin']}")
    if facts["ask"]:
        say(f"several legs match; {', '.join(facts['ask'])} would say which is meant")
    if facts["refusal"]:
        say(f"✘ nothing matches: {facts['refusal']}")
    for near in facts["nearly"]:
        say(f"~ {near['pmode_id']} leg {near['leg']}")
        for d in near["differs"]:
            say(f"    {d['parameter']}" + (f"   ({d['hint']})" if "hint" in d else ""))
            say(f"      - message    {d['message']}")
            say(f"      + agreement  {d['agreement']}")


@click.command()
def schema():
    """The JSON Schema (2020-12) of an agreement file, for editors.

    \b
    gateway pmodes schema > pmodes/agreement.schema.json
    # and as the first line of an agreement: #:schema agreement.schema.json
    """
    from gateway.pmodes.schema import schema as schema_

    show_json(schema_())
