"""`python -m tests.golden [--write] [pytest's arguments]`: compare with the golden files, or rewrite them."""

import os
import sys
from pathlib import Path

import pytest

from tests.golden import WRITE

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if len(arguments) < len(sys.argv[1:]):
        os.environ[WRITE] = "1"
    sys.exit(pytest.main([str(Path(__file__).parent), "-q", *arguments]))
