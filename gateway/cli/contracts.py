"""`gateway wsdl` and `gateway openapi`: the contracts of the plugin API, for those who generate clients."""

import click


@click.command()
@click.option("--old", "kind", flag_value="old", help="The old interface (/services/backend).")
@click.option("--push", "kind", flag_value="push", help="The service a backend offers to be pushed to.")
@click.option("--location", help="The address that stands in it; by default that of a gateway on this machine.")
def wsdl(kind, location):
    """Print the WSDL of the SOAP door, or with --push the one a backend implements."""
    from gateway.backends.domibus_ws.wsdl import wsdl as made

    kind = kind or "current"
    paths = {"current": "services/wsplugin", "old": "services/backend", "push": "backend"}
    click.echo(made(kind, location=location or f"http://localhost:8180/{paths[kind]}"), nl=False)


@click.command()
def openapi():
    """Print the OpenAPI document of the REST API."""
    import msgspec

    from gateway import __version__
    from gateway.backends.rest.openapi import document
    from gateway.backends.rest.operations import OPERATIONS

    click.echo(msgspec.json.format(msgspec.json.encode(document(OPERATIONS, __version__)), indent=2).decode())
