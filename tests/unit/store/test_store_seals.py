"""Sealing anew is killed in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate import rekey
from tests.contract.test_store_contract import submitted

PROGRAM = """
import asyncio, sys
from gateway.keys.sealing import KeyEncryptionKey
from gateway.operate import rekey
from gateway.store.postgres import PostgresStore

async def main():
    store = await PostgresStore.open(sys.argv[1], schema=sys.argv[2])
    print(await rekey.rekey(store, KeyEncryptionKey(b"n" * 32, [b"o" * 32]), actor="anna", batch=3))
    await store.close()

asyncio.run(main())
"""


async def test_killed_between_two_batches_the_next_run_goes_on(newest):
    """MT02."""
    store, old = await newest.store(), KeyEncryptionKey(b"o" * 32)
    ids = [uuid4() for _ in range(10)]
    for id in ids:
        await submitted(store, id=id, wrapped_key=old.wrap(b"k" * 32, str(id)))
    run = [sys.executable, "-c", PROGRAM, newest.dsn, newest.schema]
    folder = Path(__file__).parents[3]
    died = subprocess.run(run, env={**os.environ, "GATEWAY_CRASH": "MT02:2"}, cwd=folder)
    assert died.returncode == -signal.SIGKILL
    new = KeyEncryptionKey(b"n" * 32, [b"o" * 32])
    assert (await rekey.standing(store, new)).total == 4, "two batches of three are done"
    again = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0 and "'message': 4" in again.stdout, again.stderr
    alone = KeyEncryptionKey(b"n" * 32)
    for id in ids:
        assert alone.unwrap((await store.message(id)).wrapped_key, str(id)) == b"k" * 32
