"""The plugin API over HTTP (REST): submit, follow, claim, acknowledge, webhooks."""

from gateway.backends.rest.app import RestBackend

__all__ = ["RestBackend"]
