"""R21: receipts that are lost, late, doubled, another message's, or come when the message was given up.

Whatever becomes of the answer, the message was stored at the first attempt: so it is delivered once, every attempt is the
same message with the same digests, and the receipt counts whenever it comes, if it is authentic and about this message.
"""

import datetime
import json
import os
import time

import pytest

from gateway.as4.units import Receipt
from tests.failover.pair import Checker
from tests.failover.proxy import Proxy, post
from tests.peer import Keys, Peer
from tests.world import EE, LV

FULL = os.environ.get("GATEWAY_FAILOVER") == "full"
#: Messages of each kind.
EACH = 8 if FULL else 3
PAYLOAD = b"<evidence>" + os.urandom(40_000).hex().encode() + b"</evidence>"

pytestmark = [pytest.mark.failover, pytest.mark.slow, pytest.mark.timeout(1200 if FULL else 300)]


@pytest.fixture
def proxy(pair):
    made = Proxy(pair.ee.as4)
    agreement = pair.lv.folder / "pmodes" / "agreement.toml"
    text = agreement.read_text().replace(f":{pair.ee.as4}/as4", f":{made.port}/as4")
    agreement.write_text(text.replace("count = 90", "count = 3"))
    yield made
    made.close()


class Producer(Checker):
    def state(self, id: str) -> str:
        return self.producer.message(id)["state"]

    def until(self, id: str, state: str, seconds: float = 300) -> None:
        """A partner without receipts is shut, and then one message a second tries."""
        end = time.monotonic() + seconds
        while (found := self.state(id)) != state:
            assert time.monotonic() < end, f"{id} is {found}, not {state}"
            time.sleep(0.05)


def receipt_about(id: str) -> Receipt:
    """What says that nothing of the message came."""
    return Receipt(message_id=f"{os.urandom(8).hex()}@peer.example", timestamp=datetime.datetime.now(datetime.UTC),
                   ref_to_message_id=id, references=())  # fmt: skip


def audited(node) -> list[dict]:
    """What the audit says of late receipts."""
    rows = json.loads(node.cli("audit", "list", "--json", "--limit", "500").stdout)
    return [row for row in rows if row["kind"] == "receipt.late"]


def test_receipts_that_are_lost_late_doubled_anothers_or_after_failure(pair, proxy, folder):
    pair.ee.start()
    pair.lv.start()
    checker = Producer(pair, folder / "checker.jsonl").consume()
    kinds: dict[str, str] = {}
    first = checker.submit(PAYLOAD)
    checker.until(first, "ACKNOWLEDGED")
    foreign = proxy.receipts[first][0]

    def rule(id: str, attempt: int):
        match kinds.get(id):
            case "lost":
                return None if attempt <= 2 else True
            case "anothers":
                return foreign if attempt == 1 else True
            case "given up":
                return None
        return True

    proxy.rule = rule
    for kind in ("lost", "anothers", "doubled", "given up"):
        ids = [f"{os.urandom(8).hex()}@checker.example" for _ in range(EACH)]
        kinds |= dict.fromkeys(ids, kind)  # before the first attempt
        for id in ids:
            checker.submit(PAYLOAD, message_id=id)
        for id in ids:
            checker.until(id, "FAILED" if kind == "given up" else "ACKNOWLEDGED")
            if kind == "doubled":
                assert [post(pair.lv.as4, proxy.receipts[id][0]) for _ in range(2)] == [204, 204]
    given_up = [id for id, kind in kinds.items() if kind == "given up"]
    # Nobody but the partner can say that it has the message, and not of another one.
    stranger = Keys.make("EE", "rsa", pair.authority)
    forger = Peer(EE, LV, stranger, (pair.keys["LV"].signing,), pair.keys["LV"].encryption)
    for id in given_up:
        shown = checker.producer.message(id)
        assert shown["state"] == "FAILED" and shown["error_code"] == "EBMS:0301", shown
        post(pair.lv.as4, foreign)
        post(pair.lv.as4, forger.signal(receipt_about(id)))
        assert checker.state(id) == "FAILED"
        assert post(pair.lv.as4, proxy.receipts[id][-1]) == 204
        checker.until(id, "ACKNOWLEDGED", 10)
    late = [row["subject"] for row in audited(pair.lv)]
    checker.wait_delivered()
    time.sleep(4)  # a lease: what would come again, comes now
    checker.close()
    counts = checker.report("R21", "receipt lost, late, doubled, another's, or after FAILED", times=len(kinds))
    assert counts["delivered"] == counts["submitted"] == len(kinds) + 1 and counts["redelivered"] == 0
    # Each attempt was the same message with the same digests; and there were as many as the fault needed.
    wanted = {"lost": 3, "anothers": 2, "doubled": 1, "given up": 4}
    for id, kind in kinds.items():
        assert len(proxy.attempts[id]) == wanted[kind], (kind, id)
        assert len(set(proxy.attempts[id])) == 1, (kind, id)
        assert len(set(proxy.receipts[id])) == 1, "EE's receipt is the stored one, octet for octet"
    assert sorted(late) == sorted(given_up)
