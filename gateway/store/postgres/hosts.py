"""The hosts a DSN names, one by one: asyncpg's time limit covers all of them together, and a
dead first host would use it up."""

from typing import Any
from urllib.parse import parse_qs, urlsplit


def hosts(dsn: str) -> list[dict[str, Any]]:
    """The arguments that pick each host of a DSN in turn; one empty choice when it names none."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    names = query["host"][0].split(",") if "host" in query else []
    ports = query["port"][0].split(",") if "port" in query else []
    if not names:
        for place in filter(None, parts.netloc.rpartition("@")[2].split(",")):
            name, port = _split(place)
            names.append(name)
            ports.append(port)
    if len(names) < 2:
        return [{}]
    if len(ports) < len(names):
        ports = (ports or ["5432"]) * len(names)
    return [{"host": name, "port": int(port or 5432)} for name, port in zip(names, ports, strict=False)]


def _split(place: str) -> tuple[str, str]:
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        return name, port.removeprefix(":")
    name, _, port = place.partition(":")
    return name, port
