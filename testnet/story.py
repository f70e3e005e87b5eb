"""The demo's story: four hospitals reproduce a published trial on four real nodes, in eight steps.

Each step is checked as it is told: one that does not come out as its text says ends the story with an error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal

import koinon
from koinon import Client, Result, Terms, descriptor, genesis, receipt
from koinon.aio import Progress
from koinon.display import duration, printable, when
from koinon.errors import Corrupt, KoinonError, Refused
from koinon.keys import SigningKey
from koinon.v1.access_pb2 import Token
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import PublishDataset
from testnet.data import PATIENTS, descriptor_path, table_path
from testnet.network import Testnet
from testnet.probe import NodeState
from testnet.stage import Stage
from testnet.two_arms import TwoArms

INSTITUTIONS = tuple(PATIENTS)
REVIEWER = "iu"  # its operator decides by hand; the others' policies answer at once
TABLE = "ercp.indo_rct"
SQL = (
    "SELECT rx, COUNT(*) AS n, SUM(CASE WHEN outcome = '1_yes' THEN 1 ELSE 0 END) AS pep, "
    "AVG(CASE WHEN outcome = '1_yes' THEN 1.0 ELSE 0 END) AS rate, AVG(age), VAR_SAMP(age) "
    "FROM {table} GROUP BY rx"
)
OPERATIONS = ("count", "sum", "avg", "variance", "group_by")
PURPOSE = "Reproduce Elmunzer et al. 2012: indomethacin against post-ERCP pancreatitis"
PUBLISHED = TwoArms(treated_events=27, treated=295, control_events=52, control=307)
PUBLISHED_P = "0.005"
_WRITES_WHILE_DOWN = 3
_CATCH_UP_S = 20.0
_POLL_S = 0.05
_SHORT = 8  # digits of an id that people need


class Story:
    """The eight steps, in order; each uses what the steps before it left on the ledger."""

    def __init__(self, stage: Stage, network: Testnet, clients: ExitStack) -> None:
        self._stage = stage
        self._network = network
        self._clients = clients
        self._analyst: Client
        self._operators: dict[str, Client]

    def tell(self) -> None:
        """Tell it all. Raises KoinonError, also where something did not come out as told."""
        self._start()
        self._publish()
        self._ask_for_access()
        self._reproduce()
        self._refuse_three_patients()
        self._lose_a_node()
        record = self._revoke()
        self._audit(record)

    def _connect(self, profile: str) -> Client:
        return self._clients.enter_context(koinon.connect(self._network.profile(profile)))

    def _start(self) -> None:
        stage, network = self._stage, self._network
        with stage.step("Four institutions start their nodes", "one ledger between equals; nobody is in charge"):
            with stage.progress("starting") as advance:

                def changed(states: Sequence[NodeState]) -> None:
                    ready = [state.institution for state in states if state.ready]
                    advance(f"online: {', '.join(ready) or 'none yet'}", len(ready), len(states))

                network.start()
                states = network.wait_ready(on_change=changed)
            table = stage.table("institution", "", "process", "height", "sees", right=("process", "height"))
            self._analyst = self._connect("analyst")
            self._operators = {name: self._connect(f"{name}-operator") for name in INSTITUTIONS}
            status = self._analyst.status()
            titles = {item.descriptor.id: item.descriptor.title for item in self._analyst.members.institutions()}
            for state in states:
                name = state.institution
                table.add_row(name, titles[name], str(state.pid), str(state.height), f"{state.peers} others")
            stage.show(table)
            _expect(status.faults_tolerated == 1, "four validators tolerate one faulty node")
            stage.say(f"Ledger at height {status.height}; of {len(states)} nodes it tolerates 1 that fails in any way.")

    def _publish(self) -> None:
        stage = self._stage
        proves = "rows stay home; not even three patients can be guessed"
        with stage.step(f"Each publishes {TABLE} from its own file", proves):
            about = descriptor.parse(descriptor_path().read_text(encoding="utf-8"))

            def publish(name: str) -> PublishDataset:
                terms = Terms(access="review" if name == REVIEWER else "auto")
                catalog = self._operators[name].catalog
                return catalog.publish(table_path(name), TABLE, descriptor=about, terms=terms).published

            columns = ("dataset", "patients", "in the catalog", "who grants", "commitment")
            table = stage.table(*columns, right=("patients",))
            with stage.progress("publishing") as advance, ThreadPoolExecutor(len(PATIENTS)) as operators:
                for number, (name, entry) in enumerate(zip(PATIENTS, operators.map(publish, PATIENTS), strict=True)):
                    advance(f"{name} has published", number + 1, len(PATIENTS))
                    rows = f"{entry.row_count} to {entry.row_count + entry.row_count_step - 1} rows"
                    grants = "an operator" if name == REVIEWER else "the policy"
                    patients, commitment = str(PATIENTS[name]), f"{entry.commitment.hex()[:10]}…"
                    table.add_row(entry.name, patients, rows, grants, commitment)
            stage.show(table)
            codelists = sum(1 for note in about.columns.values() if note.codelist)
            stage.say(
                f"Also: title, keywords, licence, citation, {len(about.columns)} columns with types and units, "
                f"and {codelists} codelists that the publishers confirmed."
            )

    def _ask_for_access(self) -> None:
        stage, analyst = self._stage, self._analyst
        proves = "rules or people decide; both leave a token on the ledger"
        with stage.step("An analyst finds the data and asks for access", proves):
            found = analyst.catalog.search("pancreatitis")
            _expect(len(found) == len(INSTITUTIONS), "the search finds every centre's table")
            stage.say("search “pancreatitis”: ", ", ".join(dataset.published.name for dataset in found))
            requests = analyst.access.request(TABLE, purpose=PURPOSE, operations=OPERATIONS, days=30, uses=20)
            stage.say(f"asks for {', '.join(OPERATIONS)}; 20 uses in 30 days; purpose: {PURPOSE}")
            at_once = [request.requested.dataset for request in requests if request.token_id]
            _expect(len(at_once) == 3, "three policies grant at once")
            stage.say("granted by policy in the same block: ", ", ".join(at_once))
            operator = self._operators[REVIEWER]
            for waiting in operator.access.requests(institution=REVIEWER, status="open"):
                operator.access.grant(waiting.id)
                stage.say(f"reviewed and granted by {REVIEWER}/operator: {printable(waiting.requested.dataset)}")
            table = stage.table("token", "dataset", "uses", "for", "smallest group", "granted by")
            tokens = self._tokens()
            for token in tokens:
                span = duration(token.expires_at_ms - token.granted_at_ms)
                uses, cohort = str(token.uses_left), f"{token.min_cohort} rows"
                table.add_row(
                    token.id[:_SHORT], printable(token.dataset), uses, span, cohort, printable(token.decided_by)
                )
            stage.show(table)
            _expect(len(tokens) == len(INSTITUTIONS), "the analyst holds a token of every institution")

    def _reproduce(self) -> None:
        stage = self._stage
        proves = "the published result, from rows that nobody put together"
        with stage.step("The analyst asks one question of all four at once", proves):
            stage.say((SQL.format(table=TABLE), "italic"))
            result = self._query(TABLE)
            table = stage.table(*result.columns, right=result.columns[1:])
            for row in result:
                table.add_row(*(_number(value) for value in row.values()))
            stage.show(table)
            arms = _arms(result)
            low, high = arms.risk_ratio_interval()
            compared = stage.table("", "computed here", "published", right=("computed here", "published"))
            for label, computed, published in (
                ("pancreatitis with indomethacin", *_both(arms, "treated")),
                ("pancreatitis with placebo", *_both(arms, "control")),
                ("risk ratio (95 % interval)", f"{arms.risk_ratio:.2f} ({low:.2f} to {high:.2f})", "not given"),
                ("P, two-sided (Fisher's exact test)", f"{arms.fisher_p():.3f}", PUBLISHED_P),
                ("P, two-sided (chi-square test)", f"{arms.chi_square_p():.3f}", "not given"),
            ):
                compared.add_row(label, computed, published)
            stage.show(compared)
            _expect(arms == PUBLISHED, "the counts are the paper's")
            _expect(f"{arms.fisher_p():.3f}" == PUBLISHED_P, "so is the P value")
            plan = result.plan
            stage.say(
                f"Computed in {result.seconds:.2f} s by {', '.join(plan.committee)} on secret shares, of which "
                f"any {plan.threshold} alone learns nothing. Opened to the analyst alone:"
            )
            for revealed in result.revealed:
                stage.say((f"  {printable(revealed.what)}", "dim"))

    def _refuse_three_patients(self) -> None:
        stage = self._stage
        with stage.step(
            "The same question about three patients alone", "no query comes closer than the minimum cohort"
        ):
            self._refused(f"case.{TABLE}", "minimum-cohort")

    def _lose_a_node(self) -> None:
        stage, network, analyst = self._stage, self._network, self._analyst
        own = f"um.{TABLE}"
        committee = analyst.plan(SQL.format(table=own)).plan.committee
        victim = next(name for name in INSTITUTIONS if name not in committee)
        proves = f"work goes on without {victim}, and it catches up by itself"
        with stage.step(f"{victim}'s node is killed while work goes on", proves):
            before = analyst.status().height
            with stage.progress(f"{victim} is killed (SIGKILL)") as advance, ThreadPoolExecutor(1) as aside:
                network.kill(victim)
                advance("the others query and write", 0, 0)
                writing = aside.submit(self._register_people, _WRITES_WHILE_DOWN)
                result = self._query(own)
                written = writing.result()
            after = analyst.status().height
            _expect(not network.pid(victim), f"{victim} is down")
            _expect(after > before, "blocks are decided without it")
            stage.say(
                f"Without {victim}, {', '.join(committee)} answered a query over {own} in {result.seconds:.2f} s, "
                f"and the ledger took {written} transactions of iu's: height {before} → {after}."
            )
            stage.say(f"A query over {victim}'s own rows has to wait for {victim}: they are nowhere else.")
            started = time.monotonic()
            with stage.progress(f"{victim} restarts") as advance:
                network.restart(victim)
                network.wait_ready()
                caught_up = self._caught_up(victim)
            stage.say(
                f"{victim} restarted, and agreed with um on block {caught_up} after {time.monotonic() - started:.1f} s."
            )

    def _revoke(self) -> AuditRecord:
        stage = self._stage
        with stage.step("um takes its token back", "who gave a permission can end it, everywhere at once"):
            token = next(token for token in self._tokens() if token.dataset == f"um.{TABLE}")
            self._operators["um"].access.revoke(token.id, "the study is finished")
            stage.say(f"um/operator revoked token {token.id[:_SHORT]}: the study is finished")
            self._refused(f"um.{TABLE}", "token-revoked", token.id)
            return self._analyst.audit.list(f"token:{token.id}", kind="token.revoked")[0]

    def _audit(self, revoked: AuditRecord) -> None:
        stage, network = self._stage, self._network
        proves = "anyone can check the trail without trusting any node"
        with stage.step("The regulator reads the trail of one dataset, and takes a receipt away", proves):
            regulator = self._connect("regulator")
            table = stage.table("no.", "time", "what", "by", "about", right=("no.",))
            records = regulator.audit.list(f"dataset:um.{TABLE}", limit=200)
            for record in records:
                about = printable(record.subject).partition(":")
                table.add_row(
                    str(record.index),
                    when(record.time_ms)[11:19],
                    printable(record.kind),
                    printable(record.actor),
                    f"{about[0]} {about[2] if about[0] == 'dataset' else about[2][:_SHORT]}",
                )
            stage.show(table)
            _expect(revoked.index in {record.index for record in records}, "the revocation is in the trail")
            path = network.dir / "receipt.json"
            receipt.save(path, regulator.audit.receipt(revoked.index))
            network.stop()
            stage.say(f"Receipt for no. {revoked.index} saved; all nodes are stopped now. Then, from two files:")
            stage.say(("$ koinon audit verify receipt.json --genesis genesis.json", "bold"))
            chain = genesis.load(network.dir / "genesis.json")
            proved = receipt.verify(receipt.load(path), chain)
            kind = proved.record.kind if isinstance(proved, receipt.VerifiedRecord) else ""
            _expect(kind == "token.revoked", "the receipt proves the revocation")
            stage.say(
                f"{kind} of {printable(revoked.subject)[:14]}… is final: "
                f"under block {proved.proof.height}, signed by {', '.join(proved.proof.signers)}."
            )
            forged = receipt.load(path)
            forged.record = forged.record.replace(b"um/operator", b"iu/operator")
            try:
                receipt.verify(forged, chain)
            except Corrupt as error:
                stage.say(f"The same receipt, with another name in it: {printable(error.message)}")
            else:
                _expect(False, "a forged receipt is refused")

    # --- what several steps do

    def _tokens(self) -> list[Token]:
        return self._analyst.access.tokens(holder=str(self._analyst.profile.person), status="active")

    def _query(self, table: str) -> Result:
        with self._stage.progress("planning") as advance:

            def on_progress(progress: Progress) -> None:
                advance(progress.stage, progress.done, progress.total)

            return self._analyst.query(SQL.format(table=table), on_progress=on_progress)

    def _refused(self, table: str, rule: str, *names: str) -> None:
        try:
            self._analyst.query(SQL.format(table=table))
        except Refused as error:
            self._stage.refusal(error.message, error.rule, error.hint)
            _expect(error.rule == rule, f"the rule is {rule}")
            _expect(all(name[:_SHORT] in error.message for name in names), "the refusal names what it is about")
        else:
            _expect(False, f"the query over {table} is refused")

    def _register_people(self, count: int) -> int:
        """Transactions that need no node but one's own and a quorum; returns how many committed."""
        for number in range(count):
            key = SigningKey.generate().public_key
            self._operators["iu"].members.register(f"iu/fellow-{number}", key, ["analyst"])
        return count

    def _caught_up(self, institution: str) -> int:
        """The height at which a node shows the same block as um's."""
        give_up = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < give_up:
            theirs, ours = self._operators[institution].status(), self._operators["um"].status()
            if theirs.height == ours.height:
                _expect(theirs.block_hash == ours.block_hash, f"{institution} and um have the same block")
                return ours.height
            time.sleep(_POLL_S)
        raise KoinonError(f"{institution} did not catch up within {_CATCH_UP_S:.0f} s")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise KoinonError(f"the demo expected that {what}, which is not so", hint="this is a bug: please report it")


def _both(arms: TwoArms, arm: str) -> tuple[str, str]:
    """One arm's events as computed and as published: ``27 of 295 (9.2 %)``."""

    def text(of: TwoArms) -> str:
        events, patients = getattr(of, f"{arm}_events"), getattr(of, arm)
        return f"{events} of {patients} ({100 * events / patients:.1f} %)"

    return text(arms), text(PUBLISHED)


def _arms(result: Result) -> TwoArms:
    rows = {row["rx"]: row for row in result}

    def count(arm: str, column: str) -> int:
        value = rows[arm][column]
        _expect(isinstance(value, int), f"{column} is a whole number")
        return int(value or 0)

    treated, control = "1_indomethacin", "0_placebo"
    return TwoArms(count(treated, "pep"), count(treated, "n"), count(control, "pep"), count(control, "n"))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, Decimal) else printable(str(value))
