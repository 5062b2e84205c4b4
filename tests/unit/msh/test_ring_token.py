"""A gateway whose keys are in a token (SoftHSM): messages go both ways, and a token that is gone is told."""

import threading
from datetime import UTC, datetime

import msgspec
import pytest

from gateway.config import Secret, Token
from gateway.operate import certificates, key_import
from tests.peer import check_receipt
from tests.softhsm import LABEL, PIN, SoftHsm
from tests.unit.msh.test_ring import Rotation
from tests.world import to_pem, world


@pytest.fixture
async def rotation(tmp_path):
    hsm = SoftHsm()
    (tmp_path / "pin").write_text(PIN)
    (tmp_path / "pin").chmod(0o600)
    token = Token(token=LABEL, module=hsm.module, pin=Secret("file", str(tmp_path / "pin")))

    def change(config):
        return msgspec.structs.replace(config, keys=msgspec.structs.replace(config.keys, tokens=(token,)))

    async with world(tmp_path, change=change) as lv:
        made = Rotation(lv)
        made.hsm, made.tokens = hsm, made.ring._tokens
        yield made


async def from_token(rotation, label: str, **wrong):
    """A key in the token, imported by its name; its certificate and id."""
    keys = rotation.keys()
    uri = rotation.hsm.add(keys.signing_private, label)
    found = key_import.read(
        to_pem(wrong.get("certificate", keys.signing)), await rotation.held(), now=datetime.now(UTC), token=uri,
        tokens=rotation.tokens,
    )  # fmt: skip
    kept = [await key_import.keep(rotation.store, rotation.rooms.kek, one, author="anna") for one in found]
    return keys, kept[0]


async def test_messages_go_both_ways_and_the_loop_goes_on(rotation):
    lv = rotation.lv
    keys, kept = await from_token(rotation, "both")
    assert kept.sealed is None and kept.token == f"pkcs11:token={LABEL};object=both" and kept.uses == ("decrypt", "sign")
    lv.peer.partner_signing = (lv.keys.signing, keys.signing)
    await rotation.do("stage", kept.id)
    await rotation.do("promote", kept.id)
    assert rotation.rooms.keyring.value.remote and rotation.signer() == keys.signing
    threads = set()
    from gateway.keys.pkcs11 import TokenKey

    real = TokenKey.sign

    def watched(key, octets):
        threads.add(threading.current_thread().name)
        return real(key, octets)

    TokenKey.sign = watched
    try:
        for recipient in (lv.keys.encryption, keys.signing):
            sent = lv.peer.message(recipient=recipient)
            answer = await lv.give(sent)
            check_receipt(answer, sent)
            assert answer.signer == keys.signing
        view = await lv.submit()
        await lv.send_due()
        assert (await lv.view(view)).state == "ACKNOWLEDGED"
        refused = await lv.give(lv.peer.message(action="Unknown"))
        assert refused.code and refused.signer == keys.signing
        assert (await lv.gateway.ready())[0]
    finally:
        TokenKey.sign = real
    assert threads and all(name.startswith("cpu") for name in threads), "never on the loop"
    # Back to the files, and the token's key goes; nothing of it was ever here.
    await rotation.do("rollback", kept.id)
    shown = {c.place for c in certificates.own_certificates(await rotation.held())}
    assert shown == {"token"}


async def test_a_certificate_of_another_key_is_refused_at_import(rotation):
    from gateway.errors import KeyUnavailable

    other = rotation.keys()
    with pytest.raises(KeyUnavailable, match="does not"):
        await from_token(rotation, "other", certificate=other.signing)
    with pytest.raises(KeyUnavailable, match="no private key with label"):
        key_import.read(to_pem(other.signing), await rotation.held(), now=datetime.now(UTC),
                        token=f"pkcs11:token={LABEL};object=nowhere", tokens=rotation.tokens)  # fmt: skip


async def test_a_token_that_is_gone_makes_the_process_unready_and_nothing_is_signed_elsewhere(rotation):
    lv = rotation.lv
    keys, kept = await from_token(rotation, "gone")
    lv.peer.partner_signing = (lv.keys.signing, keys.signing)
    await rotation.do("stage", kept.id)
    await rotation.do("promote", kept.id)
    [token] = rotation.tokens._open.values()
    token._drop()
    token.label = "unplugged"  # what it looks for is not there
    lv.gateway.health.forget()
    ready, checks = await lv.gateway.ready()
    assert not ready and "there is no token" in {name: text for name, _, text in checks}["keys"]
    view = await lv.submit()
    await lv.send_due()
    assert (await lv.view(view)).state == "WAITING_FOR_RETRY", "not with a file"
    status, _, _ = await lv.raw(*_body(lv.peer.message()))
    assert status == 503
    # It is plugged in again.
    token.label = LABEL
    lv.gateway.health.forget()
    assert (await lv.gateway.ready())[0]
    check_receipt(await lv.give(sent := lv.peer.message()), sent)


def _body(sent):
    return sent.content_type, sent.body
