"""What a node says about itself to people and to monitoring: its status, and why nothing is decided. Reads only."""

from __future__ import annotations

import shutil
import time
from importlib import metadata

from koinon.v1.services_pb2 import DiagnoseStallResponse, GetStatusResponse, PeerStatus, ValidatorStanding
from node import pruning
from node.application import Application
from node.config import NodeConfig
from node.consensus.events import Step
from node.contracts import upgrades
from node.diagnosis import diagnose
from node.engine import Engine, EngineStatus
from node.peers import Peers
from node.pool import Pool
from node.progress import Progress


class Report:
    """Asked on the loop's thread, like everything that it looks at."""

    def __init__(
        self,
        config: NodeConfig,
        chain_id: str,
        application: Application,
        engine: Engine,
        pool: Pool,
        peers: Peers,
        progress: Progress,
    ) -> None:
        self._config = config
        self._chain_id = chain_id
        self._application = application
        self._engine = engine
        self._pool = pool
        self._peers = peers
        self._progress = progress
        self._version = metadata.version("koinon")

    def status(self) -> GetStatusResponse:
        """For `koinon status`."""
        chain, engine, protocol = self._engine.chain, self._engine.status(), self._application.protocol()
        upcoming, blocks = protocol.next.scheduled, self._engine.blocks
        return GetStatusResponse(
            institution=self._config.institution,
            chain_id=self._chain_id,
            version=self._version,
            height=chain.height,
            block_time_ms=chain.time_ms,
            block_hash=chain.block_hash,
            round=engine.round,
            step=_step(engine),
            pending_transactions=len(self._pool),
            peers=[
                PeerStatus(
                    institution=peer.institution,
                    connected=peer.connected,
                    height=peer.height,
                    last_seen_ms=peer.last_seen_ms,
                )
                for peer in self._peers.status()
            ],
            faults_tolerated=chain.validators.faults_tolerated,
            validators=chain.validators.to_proto(),
            syncing=engine.behind,
            quiet_ms=monotonic_ms() - self._progress.committed_at_ms,
            highest_claim=engine.highest_claim,
            protocol=protocol,
            upgrade_needed=not upgrades.knows(upcoming.version, upcoming.features),
            first_block=blocks.first(),
            demanded_block=pruning.demanded(blocks, self._application.parameters().block_retention_ms),
            silent=self._signing_state_lost(engine) or self._key_missing(engine),
        )

    def stall(self) -> DiagnoseStallResponse:
        """For `koinon why-stalled`."""
        chain, engine, progress = self._engine.chain, self._engine.status(), self._progress
        now_ms, own = monotonic_ms(), self._config.institution
        peers = {peer.institution: peer for peer in self._peers.status()}
        clocks = progress.clocks()
        standings = []
        for member in chain.validators:
            standing = ValidatorStanding(institution=member.institution, power=member.power)
            if member.institution == own:
                standing.connected = True
                standing.last_seen_ms, standing.height = time.time_ns() // 1_000_000, chain.height
            elif peer := peers.get(member.institution):
                standing.connected = peer.connected
                standing.last_seen_ms, standing.height = peer.last_seen_ms, peer.height
                standing.clock_ahead_ms = clocks.get(member.institution, 0)
            standing.prevoted = engine.deciding and member.institution not in engine.waiting_for_prevotes
            standing.precommitted = engine.deciding and member.institution not in engine.waiting_for_precommits
            standings.append(standing)
        answer = DiagnoseStallResponse(
            height=chain.height + 1,
            deciding=engine.deciding,
            round=engine.round,
            step=_step(engine),
            proposer=engine.proposer,
            proposed=engine.proposed,
            quiet_ms=now_ms - progress.committed_at_ms,
            deciding_ms=now_ms - progress.height_at_ms if engine.deciding else 0,
            round_ms=now_ms - progress.round_at_ms if engine.deciding else 0,
            heartbeat_ms=self._engine.heartbeat_ms,
            pending_transactions=len(self._pool),
            quorum=chain.validators.quorum,
            reachable_power=sum(item.power for item in standings if item.connected),
            validators=standings,
            syncing=engine.behind,
            highest_claim=engine.highest_claim,
            signing_state_lost=self._signing_state_lost(engine),
            votes_from_height=engine.votes_from_height or 0,
            validator_key_missing=self._key_missing(engine),
            displaced=self._peers.displaced(),
            disk_free_bytes=shutil.disk_usage(self._config.home.path).free,
            slowest_sync_ms=progress.slowest_sync_ms(now_ms),
        )
        diagnose(answer, own, time.time_ns() // 1_000_000)
        return answer

    def _signing_state_lost(self, engine: EngineStatus) -> bool:
        chain, safe = self._engine.chain, engine.votes_from_height
        return self._config.institution in chain.validators and (safe is None or safe > chain.height + 1)

    def _key_missing(self, engine: EngineStatus) -> bool:
        return self._config.institution in self._engine.chain.validators and not engine.has_key


def monotonic_ms() -> int:
    """The clock of ``Progress``."""
    return time.monotonic_ns() // 1_000_000


def _step(engine: EngineStatus) -> str:
    return Step(engine.step).name.lower() if engine.deciding else "idle"
