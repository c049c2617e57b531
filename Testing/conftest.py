"""What several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT beside the repository; where it is not there, the test is skipped and says so."""
    if not (SHARED_DATA / "ct").is_dir():
        pytest.skip(f"real CT data not found at {SHARED_DATA}")
    return SHARED_DATA
