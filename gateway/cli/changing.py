"""The options of every verb that plans a change, shows it, asks, and has all processes follow."""

from collections.abc import Callable

import click

#: What `--force` is for where agreements change, and where the ring of keys does.
LINT_ERRORS = "In spite of lint errors; they stand in the audit."
PLAN_WARNINGS = "In spite of what the plan warns of; that stands in the audit."


def change_options(*more: Callable, force: str) -> Callable:
    """A decorator: `--yes`, `--dry-run`, `--plan` (as `plan_id`), `--force` with the help `force`, `--timeout`; and the
    options `more`."""
    options = (
        *more,
        click.option("--yes", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Show what would change, and do nothing."),
        click.option("--plan", "plan_id", metavar="ID", help="Only if this is still the plan; else exit status 6."),
        click.option("--force", is_flag=True, help=force),
        click.option("--timeout", type=click.FloatRange(1, 3600), default=60.0, show_default=True,
                     help="Seconds for every process to acknowledge."),
    )  # fmt: skip

    def add(command: Callable) -> Callable:
        for option in options:
            command = option(command)
        return command

    return add
