"""What reading a Domibus P-Mode file has to tell: mended, ignored, worth a look, wrong."""

from collections.abc import Callable, Iterable

from msgspec import Struct

from gateway.errors import ConfigError

#: Notes of one kind beyond this are counted, not listed: a hostile file may have thousands.
MAX_NOTES = 500
#: So many errors are enough to know that it is not the right file.
MAX_ERRORS = 100


class Note(Struct, frozen=True):
    """`where` is file, line and element; `line` stands alone for editors; `rule` is that of `lint`, if any."""

    where: str
    message: str
    line: int | None = None
    rule: str | None = None


class PModeRefused(ConfigError):
    """A P-Mode file with errors. `report` holds them all, and what was found beside them."""

    def __init__(self, report: "Report") -> None:
        more = f" ({len(report.errors)} errors)" if len(report.errors) > 1 else ""
        super().__init__(f"cannot be imported{more}: {told(report.errors)}", file=report.file)
        self.report = report


class Report:
    """The notes about one file. Equal ignored things are told once, with their number."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.repaired: list[Note] = []
        self.warnings: list[Note] = []
        self.errors: list[Note] = []
        self._ignored: dict[str, tuple[Note, int]] = {}

    @property
    def ignored(self) -> list[Note]:
        """What has no meaning here, each kind once."""
        return [_counted(note, times) for note, times in self._ignored.values()]

    def repair(self, line: int | None, what: str, message: str, rule: str | None = None) -> None:
        self._add(self.repaired, self._note(line, what, message, rule))

    def warn(self, line: int | None, what: str, message: str, rule: str | None = None) -> None:
        self._add(self.warnings, self._note(line, what, message, rule))

    def error(self, line: int | None, what: str, message: str, rule: str | None = None) -> None:
        self._add(self.errors, self._note(line, what, message, rule))
        if len(self.errors) >= MAX_ERRORS:
            raise PModeRefused(self)

    def ignore(
        self, line: int | None, what: str, message: str | Callable[[], str], *, kind: str | None = None
    ) -> None:
        """`kind` is what makes two of them the same, by default everything. A `message` may be made when needed."""
        key = kind or f"{what}: {message}"
        if key in self._ignored:
            note, times = self._ignored[key]
            self._ignored[key] = (note, times + 1)
        elif len(self._ignored) < MAX_NOTES:
            self._ignored[key] = (self._note(line, what, message if isinstance(message, str) else message(), None), 1)

    def _note(self, line: int | None, what: str, message: str, rule: str | None) -> Note:
        place = f"{self.file}, line {line}" if line else self.file
        return Note(f"{place}: {what}" if what else place, message, line, rule)

    def _add(self, notes: list[Note], note: Note) -> None:
        if len(notes) < MAX_NOTES and note not in notes:
            notes.append(note)


def _counted(note: Note, times: int) -> Note:
    if times == 1:
        return note
    return Note(note.where, f"{note.message} ({times} times)", note.line, note.rule)


def told(notes: Iterable[Note], most: int = 3) -> str:
    """The first few notes as one text."""
    notes = list(notes)
    first = "; ".join(f"{note.where}: {note.message}" for note in notes[:most])
    return first + (f"; and {len(notes) - most} more" if len(notes) > most else "")
