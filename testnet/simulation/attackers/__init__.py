"""Faulty members, one small file each. Up to f of them act at once; everyone else has to remain safe, and live."""

from __future__ import annotations

from testnet.simulation.attackers.amnesiac import Amnesiac
from testnet.simulation.attackers.attacker import Attacker
from testnet.simulation.attackers.block_forger import BlockForger
from testnet.simulation.attackers.endless_signer import EndlessSigner
from testnet.simulation.attackers.equivocator import Equivocator
from testnet.simulation.attackers.false_accuser import FalseAccuser
from testnet.simulation.attackers.false_polka import FalsePolka
from testnet.simulation.attackers.flooder import Flooder
from testnet.simulation.attackers.foul_proposer import FoulProposer
from testnet.simulation.attackers.garbage import Garbage
from testnet.simulation.attackers.late import Late
from testnet.simulation.attackers.silent import Silent
from testnet.simulation.attackers.snapshot_forger import SnapshotForger
from testnet.simulation.attackers.twin import Twin
from testnet.simulation.attackers.withholder import Withholder
from testnet.simulation.attackers.wrong_height import WrongHeight

__all__ = ["ATTACKERS", "Attacker"]

ATTACKERS: dict[str, type[Attacker]] = {
    "amnesiac": Amnesiac,
    "block forger": BlockForger,
    "endless signer": EndlessSigner,
    "equivocator": Equivocator,
    "false accuser": FalseAccuser,
    "false polka": FalsePolka,
    "flooder": Flooder,
    "foul proposer": FoulProposer,
    "garbage": Garbage,
    "late": Late,
    "silent": Silent,
    "snapshot forger": SnapshotForger,
    "twin": Twin,
    "withholder": Withholder,
    "wrong height": WrongHeight,
}
