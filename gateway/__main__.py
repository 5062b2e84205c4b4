"""`python -m gateway`, the same as `gateway`."""

from gateway.cli.main import main

main()
