"""What a node writes down about what others do has a bound."""

from __future__ import annotations

import json

import pytest
import structlog

from node import logging
from node.logging import Bound


def test_a_flood_of_one_event_leaves_room_on_the_disk_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        log = logging.configure("info", "um")
        for height in range(1_000):
            log.warning("vote from the future", institution="iu")
            log.info("block", height=height)
        log.warning("equivocation", institution="iu")
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    floods = [line for line in lines if line["event"] == "vote from the future"]
    assert 0 < len(floods) <= 600  # a minute may end meanwhile
    assert any("further" in line for line in floods)
    assert sum(line["event"] == "block" for line in lines) == 1_000
    assert lines[-1]["event"] == "equivocation"


def test_what_was_left_out_is_written_again_a_minute_later() -> None:
    seconds = 0.0
    bound = Bound(lambda: seconds)

    def written() -> int:
        count = 0
        for _ in range(1_000):
            try:
                bound(None, "warning", {"event": "blocks dropped"})
            except structlog.DropEvent:
                continue
            count += 1
        return count

    first = written()
    assert 0 < first < 1_000
    assert written() == 0
    seconds = 60.0
    assert written() == first
