import pytest

from tests.unit.store.servers import KINDS, Database, Servers


@pytest.fixture(scope="session")
def servers():
    made = Servers()
    yield made
    made.stop()


@pytest.fixture(params=KINDS)
async def database(request, servers):
    """A migrated schema on each version."""
    made = await Database.make(servers.dsn(request.param))
    yield made
    await made.drop()


@pytest.fixture
async def newest(servers):
    """A migrated schema on one version, for what does not depend on it."""
    made = await Database.make(servers.dsn("wheel"))
    yield made
    await made.drop()
