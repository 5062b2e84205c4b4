import io
import json

import pytest

from gateway.cli.demo.scenario import Result
from gateway.cli.demo.show import Screen

RESULT = Result(
    direction="LV->EE", action="ExecuteQueryRequest", bytes=4321, ms=41, receipt_verified=True,
    payload_digest_equal=True, message_id="1@x",
)  # fmt: skip


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str, tty: bool) -> None:
        super().__init__(io.BytesIO(), encoding)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def printed(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def everything(screen: Screen) -> None:
    screen.done("keys", 0.21)
    screen.message("evidence request", RESULT)
    screen.section("Look → at it", ["one", "", "two"])
    screen.box("not for production")


@pytest.mark.parametrize("encoding,mark,arrow", [("utf-8", "✔", "LV → EE"), ("ascii", "ok", "LV -> EE")])
def test_plain_without_a_terminal(encoding, mark, arrow):
    stream = Stream(encoding, tty=False)
    everything(Screen(stream))
    text = stream.printed()
    assert "\x1b" not in text and mark in text and arrow in text
    assert "4.3 kB" in text and "41 ms   receipt verified" in text and "0.2 s" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_colour_on_a_terminal_unless_unwanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Stream("utf-8", tty=True)
    everything(Screen(stream))
    assert "\x1b[32m✔\x1b[0m" in stream.printed()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Stream("utf-8", tty=True)
    everything(Screen(stream))
    assert "\x1b" not in stream.printed()


def test_json_is_one_object_and_nothing_else(capsys):
    stream = Stream("utf-8", tty=True)
    screen = Screen(stream, quiet=True)
    everything(screen)
    screen.failed("never shown")
    screen.json(False, 1.23456, [RESULT], "why: ā")
    (line,) = stream.printed().splitlines()
    assert json.loads(line) == {
        "ok": False, "seconds": 1.235, "error": "why: ā",
        "messages": [{
            "direction": "LV->EE", "action": "ExecuteQueryRequest", "bytes": 4321, "ms": 41,
            "receipt_verified": True, "payload_digest_equal": True, "message_id": "1@x",
        }],
    }  # fmt: skip
    assert capsys.readouterr() == ("", "")


def test_no_error_member_when_all_is_well():
    stream = Stream("utf-8", tty=False)
    Screen(stream, quiet=True).json(True, 1, [], None)
    assert "error" not in json.loads(stream.printed())
