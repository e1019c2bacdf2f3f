"""Searches for histories after which we and the aggregator say different things: `python -m tests.leap_histories
--count 10000 --jobs 2`.

Histories come in parts of 50 with a seed each, counted up from the first. What breaks a promise is printed with its
seed, shrunk to the least that does, and the exit status is 1; `--seed N --count 50` makes that part again.
"""

import sys

from tests.histories import main
from tests.scenes.in_step_histories import Search

PART = 50

if __name__ == "__main__":
    sys.exit(main(Search, prog="tests.leap_histories", about=__doc__, part_count=PART))
