"""`gateway explain`: what an error means, and who must do what."""

import os
import re
import sys

import click

from gateway.cli.local import config_option, on_store
from gateway.cli.output import json_option, show_json

#: What might be a message: an id of ours, a MessageId, or 8 characters or more of either.
_MESSAGE = re.compile(r"[0-9a-fA-F-]{8,}|\S+@\S+")
FOUND = {
    "en": {"sending": "found by us while sending", "partner": "said by the partner about what we sent",
           "receiving": "found by us in what a partner sent"},
    "lv": {"sending": "konstatējām mēs, sūtot", "partner": "partneris par mūsu nosūtīto",
           "receiving": "konstatējām mēs partnera sūtītajā"},
}  # fmt: skip


WORDS = {
    "en": {"what": "what", "why": "why", "do": "do", "who": "who must act"},
    "lv": {"what": "kas noticis", "why": "kāpēc", "do": "darīt", "who": "jārīkojas"},
}


def language_option(command):
    """`--lang`, from the locale where it is not said."""
    return click.option(
        "--lang", "language", type=click.Choice(["en", "lv"]), default=spoken,
        help="Language of explanations; the locale's where it is not said.",
    )(command)  # fmt: skip


def spoken() -> str:
    """The language of the locale, of those we have."""
    name = next((value for key in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(key))), "")
    return "lv" if name.lower().startswith("lv") else "en"


def show_explanation(explanation, language: str) -> None:
    """What happened, why, what to do, and who must act."""
    words = WORDS[language]
    rows = (("what", explanation.what), ("why", explanation.why), ("do", explanation.fix), ("who", explanation.actor))
    width = max(len(words[name]) for name, _ in rows) + 2
    for name, text in rows:
        click.echo(f"  {words[name] + ':':<{width}}{text}")


@click.command()
@click.argument("what")
@language_option
@json_option
@config_option
def explain(what, language, as_json, config):
    """What WHAT means: an error code (EBMS:0101 or 0101), a word (tls, receipt), or a message.

    Exit status 5: nothing is known of it.

    \b
    gateway explain EBMS:0101
    gateway explain tls --lang lv
    """
    import msgspec

    from gateway.operate.explanations import look_up

    found = look_up(what, language=language)
    if not found and _MESSAGE.fullmatch(what):
        _explain_message(what, language, as_json, config)
        return
    if as_json:
        show_json([
            {"on": entry.on, "codes": sorted(entry.codes), **msgspec.to_builtins(explanation)}
            for entry, explanation in found
        ])  # fmt: skip
    else:
        for entry, explanation in found:
            codes = " ".join(sorted(entry.codes))
            click.echo("  ".join(filter(None, (explanation.key, codes, f"({FOUND[language][entry.on]})"))))
            show_explanation(explanation, language)
    if not found:
        click.echo(f"nothing is known of {what!r}\nhint:  give a code, a word of it, or a message", err=True)
    sys.exit(0 if found else 5)


def _explain_message(reference: str, language: str, as_json: bool, config) -> None:
    import msgspec

    from gateway.operate import messages

    found = on_store(config, lambda store: messages.trace(store, reference))
    explanation = messages.explanation(found, language=language)
    if as_json:
        show_json(msgspec.to_builtins(explanation))
    elif explanation is None:
        click.echo(f"{found.message.user_message.message_id}  {found.message.state}: nothing went wrong")
    else:
        click.echo(f"{found.message.user_message.message_id}  {found.message.state}  {found.message.error_code or ''}")
        show_explanation(explanation, language)
