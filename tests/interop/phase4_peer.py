"""The phase4 peer as a process: one JVM for the whole run, told what to do by lines of JSON."""

import itertools
import json
import queue
import shutil
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

FOLDER = Path(__file__).parent / "peer"
JAR = FOLDER / "target" / "as4-peer.jar"


def version() -> str:
    """The release of phase4 that the peer is built with."""
    pom = ElementTree.parse(FOLDER / "pom.xml")
    return pom.findtext(".//{*}phase4.version")


class Phase4:
    """The running peer. Methods may be called by several threads."""

    def __init__(self, folder: Path, configuration: str) -> None:
        if not JAR.exists():
            raise RuntimeError("the peer is not built: `make interop` does that")
        self.folder = folder
        (folder / "peer.json").write_text(configuration)
        self.log = folder / "peer.log"
        self._errors = self.log.open("ab")
        self._process = subprocess.Popen(
            [shutil.which("java"), "-Xmx1g", "-XX:+UseSerialGC",
             f"-Djava.io.tmpdir={folder}", "-cp", f"{JAR}:{JAR.parent}/lib/*", "as4peer.Main", str(folder / "peer.json")],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._tags = itertools.count(1)
        self._waiting: dict[str, queue.SimpleQueue] = {}
        self._changed = threading.Condition()
        self.events: list[dict] = []
        self._ready = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.facts = self._ready.get(timeout=120)
        except queue.Empty:
            self.stop()
            raise RuntimeError(f"the peer does not start: {self.log.read_text()[-2000:]}") from None
        if self.facts["event"] != "listening":
            raise RuntimeError(f"the peer ended: {self.log.read_text()[-4000:]}")

    def _read(self) -> None:
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "listening":
                self._ready.put(event)
            elif "tag" in event:
                self._waiting.pop(event["tag"]).put(event)
            else:
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        self._ready.put({"event": "ended"})
        for one in list(self._waiting.values()):
            one.put({"event": "failed", "exception": "the peer ended"})

    def url(self, site: str, *, secured: bool = False) -> str:
        if secured:
            return f"https://127.0.0.1:{self.facts['securedPort']}/as4/{site}"
        return f"http://127.0.0.1:{self.facts['port']}/as4/{site}"

    def command(self, op: str, *, seconds: float = 300, **more) -> dict:
        """Carry out one command and wait for its end."""
        tag, answer = str(next(self._tags)), queue.SimpleQueue()
        self._waiting[tag] = answer
        line = json.dumps({"op": op, "tag": tag, **more}) + "\n"
        with self._changed:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        try:
            event = answer.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"phase4 has not carried out {op} in {seconds} s; see {self.log}") from None
        assert event["event"] == "done", event
        return event

    def send(self, site: str, messages: list[dict], *, concurrency: int = 1) -> list[dict]:
        """Send messages; what phase4 says of each, in order."""
        return self.command("send", site=site, messages=messages, concurrency=concurrency)["results"]

    def answer(self, site: str, **how) -> None:
        """Change how the site answers; without more, as usual."""
        self.command("answer", site=site, **how)

    def of(self, message_id: str, event: str = "received") -> list[dict]:
        """Everything of that kind about one message so far."""
        with self._changed:
            return [e for e in self.events if e["event"] == event and e.get("messageId") == message_id]

    def wait(self, message_id: str, event: str = "received", seconds: float = 30) -> dict:
        """The first such event about a message."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for e in self.events:
                    if e["event"] == event and e.get("messageId") == message_id:
                        return e
                assert self._changed.wait(max(end - time.monotonic(), 0)), f"phase4 has not {event} {message_id}"

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._reader.join(10)
        self._errors.close()
