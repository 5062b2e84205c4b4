"""What the agreements of a profile version have in common, read from `profiles/*.toml`.

The security suite of a profile is code in `gateway.as4.profiles`; this is the rest: roles,
services, actions, properties, patience. An agreement names its profile with the version
and keeps these values until it names another.
"""

import tomllib
from importlib import resources
from pathlib import Path

from gateway.as4.profiles import PROFILES
from gateway.config.strict import build, suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Defaults

#: Profiles with exchanges of their own. The others agree on theirs file by file.
_FILES = {"oots/1.2": "oots-1.2.toml", "oots/2.0": "oots-2.0.toml"}
_PLAIN = "edelivery-as4.toml"


def defaults_of(profile: str) -> Defaults:
    """The defaults of a profile by its name. Raises `ConfigError` for an unknown one."""
    if profile not in PROFILES:
        raise ConfigError(f"there is no profile {profile!r}", key="profile", hint=suggestion(profile, PROFILES))
    name = _FILES.get(profile, _PLAIN)
    text = resources.files("gateway.pmodes").joinpath("profiles", name).read_text("utf-8")
    return build(tomllib.loads(text), Defaults, file=f"profiles/{name}", base=Path())
