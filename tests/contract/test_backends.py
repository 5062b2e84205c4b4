"""Every backend of ours against the backend contract."""

from gateway.backends.rest import RestBackend
from tests.contract.backend_contract import BackendContract


class TestRest(BackendContract):
    def make(self, msh):
        return RestBackend(msh, {})
