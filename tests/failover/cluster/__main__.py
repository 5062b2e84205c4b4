"""`make rehearsal`: a failover on this machine, told in plain words. `--keep` leaves the cluster up afterwards."""

import argparse
import os
import signal
import sys

from tests.failover.cluster import network, servers
from tests.failover.cluster.rehearsal import rehearse


def main() -> int:
    parser = argparse.ArgumentParser(prog="make rehearsal", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up, to play with, until Ctrl-C")
    arguments = parser.parse_args()
    if why := network.missing() or servers.missing():
        print(f"rehearsal: {why}", file=sys.stderr)
        return 1
    # However it is ended, everything is removed.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        return 0 if rehearse(arguments.keep) else 1
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
