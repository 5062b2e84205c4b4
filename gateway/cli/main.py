"""`gateway`: the root of the command line.

A command's module is imported when the command is used, never before: `gateway --help` has
to be there before one has let go of the key. What help shows stands in the table below.

Errors leave as two lines on standard error, what is wrong and what to do, and as an exit
status that scripts can rely on (product reference, "Exit codes").
"""

import importlib
import os
import sys
from typing import Any

import click

from gateway import __version__
from gateway.cli.verbs import Verb

COMMANDS: dict[str, dict[str, Verb]] = {
    "Begin": {
        "demo": Verb("gateway.cli.demo:demo", "Two access points exchange evidence on this machine."),
        "doctor": Verb("gateway.cli.doctor:doctor", "Is this node fit to run? Worst first, each with a fix."),
        "run": Verb("gateway.cli.run:run", "Run the gateway."),
    },
    "Messages": {
        "send": Verb("gateway.cli.send:send", "Send a message and wait for its receipt."),
        "messages": Verb("gateway.cli.messages:group", "Messages: list, show, trace, resend, export, legal holds …"),
        "inspect": Verb("gateway.cli.inspect:inspect", "Judge a captured AS4 message offline."),
        "explain": Verb("gateway.cli.explain:explain", "What an error means, and who must do what."),
        "receipts": Verb("gateway.cli.receipts:group", "Receipts with non-repudiation information."),
    },
    "Set up": {
        "certs": Verb("gateway.cli.certs:group", "Certificates: ours and the partners'."),
        "pmodes": Verb("gateway.cli.pmodes:group", "Agreements with partners: list, show, lint, why …"),
        "parties": Verb("gateway.cli.parties:group", "Partners: list, show, add, remove, test, export."),
        "backends": Verb("gateway.cli.backends:group", "API clients: create, list, token, revoke, scope."),
        "ha": Verb("gateway.cli.ha:group", "The pair: status, switchover, drain, undrain."),
        "audit": Verb("gateway.cli.audit:group", "The audit: list, export, verify, anchor."),
        "store": Verb("gateway.cli.store:group", "The message store: migrate, status, purge, rekey."),
    },
    "More": {
        "wsdl": Verb("gateway.cli.contracts:wsdl", "The contract of the SOAP door; --old, --push."),
        "openapi": Verb("gateway.cli.contracts:openapi", "The OpenAPI document of the REST API."),
        "version": Verb("gateway.cli.main:version", "The version of the gateway."),
    },
}
VERBS = {name: verb for theme in COMMANDS.values() for name, verb in theme.items()}


class Root(click.Group):
    """A group that knows its commands by the table alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        verb = VERBS.get(name)
        if verb is None:
            return None
        module, _, attribute = verb.place.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for theme, verbs in COMMANDS.items():
            with formatter.section(theme):
                formatter.write_dl([(name, verb.help) for name, verb in verbs.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name = args[0] if args else ""
        if name and name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, 2, 0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else "`gateway --help` lists the commands"
            raise click.UsageError(f"there is no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list:
        from click.shell_completion import CompletionItem

        return [CompletionItem(n, help=v.help) for n, v in VERBS.items() if n.startswith(incomplete)]


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
def root() -> None:
    """An AS4 access point and gateway for the EU Once-Only Technical System.

    \b
    Exit status: 0 ok · 1 failed · 2 usage · 3 a check found something · 4 not allowed
    5 not found · 6 conflict · 7 the partner or the network failed · 8 timeout · 130 interrupted
    """


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the versions of what matters below.")
def version(as_json: bool) -> None:
    """The version of the gateway."""
    if not as_json:
        click.echo(__version__)
        return
    import json
    import platform
    import ssl
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    below = {}
    for name in ("hypercorn", "aiohttp", "lxml", "cryptography", "asyncpg"):
        try:
            below[name] = version_of(name)
        except PackageNotFoundError:
            below[name] = None
    click.echo(
        json.dumps(
            {"version": __version__, "python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION, **below},
            indent=2,
        )
    )


def main(args: list[str] | None = None) -> None:
    """The entry point. Always leaves through `sys.exit`."""
    try:
        status = root.main(args, prog_name="gateway", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output had enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        status = 130
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"hint:  `{error.ctx.command_path} --help` says how", err=True)
        status = error.exit_code
    except Exception as error:
        status = _explain(error)
    sys.exit(status if isinstance(status, int) else 0)


def _explain(error: Exception) -> int:
    """Say what is wrong and what to do; the exit status."""
    from gateway import errors
    from gateway.client import GatewayProblem
    from gateway.log import printable

    status = _status(error, errors, GatewayProblem)
    hint = str(getattr(error, "hint", "") or "")
    what = str(error)
    if status == 1 and not isinstance(error, errors.GatewayError | GatewayProblem):
        if os.environ.get("GATEWAY_DEBUG"):
            import traceback

            traceback.print_exception(error)
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
        hint = hint or ("" if isinstance(error, OSError) else "GATEWAY_DEBUG=1 shows where")
    elif hint and isinstance(error, errors.ConfigError):
        what = what.removesuffix(f" ({hint})")
    click.echo(f"error: {printable(what, 4096)}", err=True)
    if hint:
        click.echo(f"hint:  {printable(hint, 4096)}", err=True)
    return status


def _status(error: Exception, errors: Any, problem: type) -> int:
    if isinstance(error, problem):
        return {401: 4, 403: 4, 404: 5, 409: 6, 412: 6, 408: 8, 504: 8}.get(error.status, 1)
    table = {
        errors.NotFound: 5,
        (errors.SubmissionConflict, errors.StalePlan): 6,
        (errors.PeerAnswered, errors.SendFailed, errors.EbmsError, ConnectionError): 7,
        TimeoutError: 8,
    }
    return next((status for kinds, status in table.items() if isinstance(error, kinds)), 1)


if __name__ == "__main__":
    main()
