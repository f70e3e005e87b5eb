"""Statistics of a two-arm trial with a yes/no outcome, from four counts: the demo's last line.

Floats are fine here: nothing of this is replicated or signed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_NORMAL_975 = 1.959963984540054  # quantile of the normal distribution: 95 % two-sided


@dataclass(frozen=True, slots=True)
class TwoArms:
    """Events among patients, treated against control. Every count is positive, and no arm is all events."""

    treated_events: int
    treated: int
    control_events: int
    control: int

    @property
    def risk_ratio(self) -> float:
        """Risk in the treated arm over risk in the control arm."""
        return (self.treated_events / self.treated) / (self.control_events / self.control)

    def risk_ratio_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the risk ratio, on the log scale (Katz et al., Biometrics 1978;34:469-74)."""
        error = math.sqrt(1 / self.treated_events - 1 / self.treated + 1 / self.control_events - 1 / self.control)
        return (
            self.risk_ratio * math.exp(-_NORMAL_975 * error),
            self.risk_ratio * math.exp(_NORMAL_975 * error),
        )

    def chi_square_p(self) -> float:
        """Two-sided P by Pearson's chi-square test (1 degree of freedom, no continuity correction)."""
        events = self.treated_events + self.control_events
        patients = self.treated + self.control
        cross = self.treated_events * (self.control - self.control_events) - self.control_events * (
            self.treated - self.treated_events
        )
        statistic = patients * cross**2 / (self.treated * self.control * events * (patients - events))
        return math.erfc(math.sqrt(statistic / 2))

    def fisher_p(self) -> float:
        """Two-sided P by Fisher's exact test: of all tables with these margins that are no likelier than this one."""
        events = self.treated_events + self.control_events
        ways = {
            count: math.comb(self.treated, count) * math.comb(self.control, events - count)
            for count in range(max(0, events - self.control), min(events, self.treated) + 1)
        }
        observed = ways[self.treated_events]
        return sum(number for number in ways.values() if number <= observed) / sum(ways.values())
