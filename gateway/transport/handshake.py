"""What a partner's server objects to in a TLS handshake, found out without sending it anything.

In TLS 1.3 the client has done its part before the server has looked at the client certificate.
A client that sends at once may be met by a reset before it reads the alert that says why. So
this one says nothing and listens. For diagnosis only; no message goes this way.
"""

import asyncio
import contextlib
import ssl

from gateway.transport.failures import explain


async def objection(host: str, address: str, port: int, context: ssl.SSLContext, patience: float) -> str | None:
    """What is wrong with a TLS connection to `host` at `address`, in words; None if nothing within `patience` s."""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
            try:
                await reader.read(1)  # a server speaks first only to complain
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return None
    except OSError as error:  # ssl.SSLError is one
        return explain(host, error)
    return None
