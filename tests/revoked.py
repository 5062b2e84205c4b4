"""A partner whose certificate names a responder, and our gateway that asks it."""

import contextlib

import pytest
from msgspec.structs import replace

from gateway.config import Duration, Revocation
from gateway.keys.keyring import SoftwareSigningKey
from tests import world as module
from tests.peer import Keys, Peer
from tests.pki import Ca, key
from tests.responder import Responder, access
from tests.world import EE, LV, to_pem, world

CA = Ca.root("Partner CA")
KEY = key("rsa", 91)


class Case:
    """Our gateway, a partner whose certificate names a responder, and that responder."""

    def __init__(self, lv, responder, leaf):
        self.lv, self.responder, self.leaf = lv, responder, leaf
        keys = Keys(KEY, leaf, KEY, leaf)
        self.peer = Peer(EE, LV, keys, (lv.keys.signing,), lv.keys.encryption)
        lv.peer = self.peer

    async def give(self):
        sent = self.peer.message(key=SoftwareSigningKey(KEY, self.leaf, (CA.certificate,)))
        return sent, await self.lv.give(sent)

    def says(self, status):
        if status == "nothing":
            self.responder.answers["/ocsp/x"] = 503
        else:
            self.responder.ocsp(CA, self.leaf, status=status)


@contextlib.asynccontextmanager
async def cases(folder, *, pinned=True, party="", **revocation):
    """`pinned`: the agreement pins the certificate; else it trusts by path."""
    async with Responder().running() as responder:
        leaf = CA.leaf("AP_EE_01", KEY.public_key(), extensions=[access(f"{responder.url}/ocsp/x")])
        pmodes = folder / "lv" / "pmodes"
        pmodes.mkdir(parents=True)
        (pmodes / "pin.pem").write_bytes(to_pem(leaf))
        (pmodes / "ca.pem").write_bytes(to_pem(CA.certificate))
        text = module.AGREEMENT
        how = 'certificate = "pin.pem"' if pinned else 'encryption = "pin.pem"'
        if not pinned:
            party = f'trust = {{ anchors = "ca.pem"{party} }}'
        changed = text.replace('signing = "ee-sign.pem"\nencryption = "ee-enc.pem"', how)
        assert changed != text

        def change(config):
            return replace(config, revocation=Revocation(issuers=pmodes / "ca.pem", timeout=Duration(5), **revocation))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "AGREEMENT", changed)
            async with world(folder / "lv", more=party, change=change) as lv:
                case = Case(lv, responder, leaf)
                case.says("good")
                yield case
