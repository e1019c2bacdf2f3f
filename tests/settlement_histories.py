"""Searches for histories of settlement that break a promise: `python -m tests.settlement_histories --count 2000`.

Histories come in parts of 25 with a seed each, counted up from the first. What breaks a promise is printed with its
seed, shrunk to the least that does, and the exit status is 1; `--seed N --count 25` makes that part again.
"""

import sys

from tests.histories import main
from tests.scenes.settlement_histories import Search

PART = 25

if __name__ == "__main__":
    sys.exit(main(Search, prog="tests.settlement_histories", about=__doc__, part_count=PART))
