"""``python -m bench.worker --job FILE --events-fd N``: one job in a fresh interpreter."""

from __future__ import annotations

import argparse
from typing import NoReturn

from bench.worker import single, template


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__)
    parser.add_argument("--job", required=True, help="JSON file, as in bench.contract.Job")
    parser.add_argument("--events-fd", type=int, default=2, help="where events go, one JSON a line")
    parser.add_argument("--entry", default=single.ENTRY, help="module:function to run")
    parser.add_argument(
        "--preload", default=",".join(template.PRELOAD), help="what to import before the job"
    )
    args = parser.parse_args()
    template.leave_working_folder()
    template.preload(args.preload)
    single.run(args.job, args.events_fd, args.entry)


if __name__ == "__main__":
    main()
