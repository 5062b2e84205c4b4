"""Origins in a file about a whole network, where reading has folded profile, network and overlay into one.

Told apart again: what the overlay says is the overlay's; what the profile says just so is the profile's; the
rest comes from the network's own file.
"""

from typing import Any

from gateway.pmodes.agreements import Exchange, Terms
from gateway.pmodes.defaults import defaults_of
from gateway.pmodes.layers import Layer, merge
from gateway.pmodes.network import NetworkFile


class NetworkOrigins:
    """For one agreement file `file` about a network whose P-Mode is `pmode`."""

    def __init__(self, said: NetworkFile, file: str, pmode: str, profile: str) -> None:
        self._said, self._file, self._pmode, self._profile = said, file, pmode, profile
        self._common = defaults_of(profile)

    def term(self, exchange: Exchange, value: object, name: str, within: str | None) -> tuple[str, str, str]:
        """(layer, file, key) of a term that stands at an exchange."""
        over = getattr(self._said.overlay, name, None)
        said = getattr(over, within, None) if within and over is not None else over
        if said not in (None, {}):
            return "overlay", self._file, f"overlay.{name}" + (f".{within}" if within else "")
        of_profile: Any = self._merged(exchange).get(name)
        if (getattr(of_profile, within) if within and of_profile is not None else of_profile) == value:
            return self._profile_layer
        return self._network

    def override(self, key: str, name: str, within: str | None) -> tuple[str, str, str] | None:
        """Of a term in overrides: None where it stands in the file itself, as its key says."""
        terms = self._said.overrides.get(key)
        value = getattr(terms, name, None) if terms is not None else None
        if value is not None and (within is None or getattr(value, within) is not None):
            return None
        return self._network

    def fact(self, exchange: Exchange, name: str) -> tuple[str, str, str]:
        """Of service, action, roles and what else is said of an exchange."""
        like = self._like(exchange)
        value = getattr(exchange, name)
        known = [getattr(layer, name, None) for layer in (like, self._common) if layer is not None]
        return self._profile_layer if value in (v for v in known if v is not None) else self._network

    def party(self, name: str, field: str) -> tuple[str, str, str]:
        """Of a party, or of one field of it."""
        over = self._said.overlay.parties.get(name)
        if over is not None and getattr(over, field, None) is not None:
            return "overlay", self._file, f"overlay.parties.{name}.{field}"
        return self._network

    @property
    def profile(self) -> tuple[str, str, str]:
        """Of the name of the profile."""
        return ("file", self._file, "profile") if self._said.profile else self._network

    @property
    def _network(self) -> tuple[str, str, str]:
        return "network", self._pmode, ""

    @property
    def _profile_layer(self) -> tuple[str, str, str]:
        return f"profile {self._profile}", "", ""

    def _like(self, exchange: Exchange) -> Exchange | None:
        facts = (exchange.service, exchange.service_type, exchange.action)
        return next((e for e in self._common.exchanges if (e.service, e.service_type, e.action) == facts), None)

    def _merged(self, exchange: Exchange) -> dict[str, Any]:
        like = self._like(exchange)
        layers: list[Terms] = [self._common, *([like] if like else [])]
        return merge(Layer("profile", terms, "") for terms in layers)
