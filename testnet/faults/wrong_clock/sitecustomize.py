"""Put a process's clock wrong by ``KOINON_CLOCK_OFFSET_S`` seconds: Python runs this before anything else."""

from __future__ import annotations

import os
import time

_OFFSET_NS = int(os.environ["KOINON_CLOCK_OFFSET_S"]) * 1_000_000_000
_time_ns = time.time_ns

time.time_ns = lambda: _time_ns() + _OFFSET_NS
time.time = lambda: (_time_ns() + _OFFSET_NS) / 1e9
