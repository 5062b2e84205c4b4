"""Play seeds: `python -m tests.simulation --seeds 300`, or one of them again: `--seed 17 --trace`.

Runs itself anew with a fixed hash seed, so that a seed means the same everywhere. Prints one JSON object; exit
status 1 when a promise was broken.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from multiprocessing import Pool

from gateway import log
from tests.simulation.scene import run


def played(seed: int) -> tuple[int, list[str], dict[str, int], str]:
    log.event = lambda *_, **__: None
    verdict = run(seed)
    return seed, verdict.wrong, verdict.figures, verdict.fingerprint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--traces", action="store_true", help="the fingerprint of each seed's trace, too")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if given.seed is not None:
        verdict = run(given.seed)
        if given.trace:
            print("\n".join(verdict.trace), file=sys.stderr)
        print(json.dumps({"seed": given.seed, "wrong": verdict.wrong, **verdict.figures, "trace": verdict.fingerprint}))
        return int(bool(verdict.wrong))
    began, total, broken, traces = time.monotonic(), Counter(), {}, {}
    with Pool(given.processes) as pool:
        for seed, wrong, figures, traces[seed] in pool.imap(played, range(given.first, given.first + given.seeds)):
            total.update(figures)
            if wrong:
                broken[seed] = wrong
                print(f"seed {seed}: {wrong}", file=sys.stderr)
            if seed % 500 == 0:
                print(f"seed {seed} after {time.monotonic() - began:.0f} s, {len(broken)} broken", file=sys.stderr)
    seconds = time.monotonic() - began
    print(json.dumps({"seeds": given.seeds, **total, "broken": broken, "seconds": round(seconds, 1),
                      "seeds_per_second": round(given.seeds / seconds, 2), "bound": f"{3 / given.seeds:.1e}",
                      **({"traces": traces} if given.traces else {})}, indent=1))
    return int(bool(broken))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
