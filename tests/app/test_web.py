"""How many peers the HTTP server serves."""

import pytest

from gateway.app.web import connections_max


@pytest.mark.parametrize(("files", "most"), [(1_024, 256), (65_536, 1_024), (100, 64), (4_096, 1_024), (-1, 1_024)])
def test_door_takes_a_quarter_of_the_files_that_the_process_may_open(files: int, most: int) -> None:
    assert connections_max(files) == most
