"""What changes under load, changes at gateways as the failure suite has them."""

from tests.failover.conftest import folder

__all__ = ["folder"]
