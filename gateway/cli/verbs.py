"""A group of commands that are imported when they are used, never before."""

import importlib
from typing import NamedTuple

import click


class Verb(NamedTuple):
    """Where a command is found, and what help says of it in one line."""

    place: str
    help: str


class Verbs(click.Group):
    """A group that knows some of its commands by a table alone: `Verbs(name, verbs={"why": Verb(…)})`."""

    def __init__(self, *args, verbs: dict[str, Verb], **more) -> None:
        super().__init__(*args, **more)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.verbs]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        verb = self.verbs.get(name)
        if verb is None:
            return super().get_command(ctx, name)
        module, _, attribute = verb.place.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, command.get_short_help_str(80)) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl([*own, *((name, verb.help) for name, verb in self.verbs.items())])

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and name not in known and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, known, 2, 0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else "`--help` lists the commands"
            raise click.UsageError(f"there is no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)
