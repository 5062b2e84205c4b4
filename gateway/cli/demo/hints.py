"""What to try while the demo runs: files to start from, and commands that work as they are printed."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from msgspec.structs import replace

from gateway.cli.demo.nodes import Node
from gateway.cli.demo.requester import request_properties
from gateway.cli.demo.show import Screen, command
from gateway.oots import birth, codes, samples


def show_hints(screen: Screen, root: Path, sender: Node, receiver: Node, message_id: str, *, kept: bool) -> None:
    """Write the files into `root`, print the commands. `message_id`: one to look at."""
    gateway, config = command(), shlex.quote(str(sender.config))
    screen.section(
        "Look at it",
        [
            f"{root}/birth-certificate.pdf",
            f"{gateway} messages list --config {config}",
            f"{gateway} messages trace {message_id[:8]} --config {config}",  # a prefix is enough
        ],
    )
    screen.section("Send your own", [*_send(root, sender, receiver, gateway), "", *_curl(root, sender, receiver)])
    screen.section(
        "Take the answers over",
        [
            *_claim(sender),
            "docs/backends.md goes on from here: acknowledge them, be told by webhook, in curl and in Python.",
        ],
    )
    screen.section("Stop", ["Ctrl-C." + ("" if kept else " Everything above is deleted.")])
    screen.box("demo: throwaway keys, loopback only, not for production")


def _send(root: Path, sender: Node, receiver: Node, gateway: str) -> Sequence[str]:
    """A system check by `gateway send`."""
    path = root / "request.xml"
    path.write_text(_system_check())
    properties = [
        f"--prop {one['name']}{'@' + one['type'] if 'type' in one else ''}={one['value']}"
        for one in request_properties(str(uuid4()))
    ]
    return [
        f"export DEMO={shlex.quote(str(root))} GATEWAY_URL={sender.api} GATEWAY_TOKEN={sender.token}",
        f"{gateway} send --to {receiver.party} --action {codes.REQUEST} \\",
        *(f"    {one} \\" for one in properties),
        f"    {shlex.quote(f'{path},{codes.REGREP_MEDIA_TYPE}')}",
    ]


def _curl(root: Path, sender: Node, receiver: Node) -> Sequence[str]:
    """Another one over plain HTTP."""
    meta = {
        "to_party": {"id": receiver.party},
        "action": codes.REQUEST,
        "conversation_id": str(uuid4()),
        "properties": request_properties(str(uuid4())),
        "parts": [{"mime_type": codes.REGREP_MEDIA_TYPE}],
    }
    (root / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    (root / "request-2.xml").write_text(_system_check())
    return [
        f"curl -H 'Authorization: Bearer {sender.token}' -H 'Idempotency-Key: 1' \\",
        f"    -F meta=@{shlex.quote(f'{root}/meta.json')} -F request=@{shlex.quote(f'{root}/request-2.xml')} \\",
        f"    '{sender.api}/v1/messages?wait=10'",
    ]


def _claim(node: Node) -> Sequence[str]:
    """What the partner answers waits for whoever asks with this token."""
    return [
        f"curl -H 'Authorization: Bearer {node.token}' -H 'Content-Type: application/json' \\",
        f"    -d '{{\"limit\": 10, \"lease\": 60}}' {node.api}/v1/inbox/claim",
    ]


def _system_check() -> str:
    """A request of procedure 00, which needs no person; with an id of its own, since none may be used twice."""
    return samples.request(replace(birth.BIRTH, procedure="00"), id=uuid4(), at=datetime.now(UTC))
