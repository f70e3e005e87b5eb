"""Headers of the chain, verified from the genesis on: the node that sends them is not believed."""

from __future__ import annotations

from koinon.errors import Unavailable
from koinon.light_client import LightClient, TrustedHeader
from koinon.rpc import Connection
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.identity_pb2 import Genesis
from koinon.v1.services_pb2 import GetSignedHeaderRequest, GetSignedHeaderResponse


class Headers:
    """Remembers what it has verified, so that the next question begins nearby."""

    def __init__(self, connection: Connection, genesis: Genesis) -> None:
        self._connection = connection
        self._light_client = LightClient(genesis)

    async def header(self, height: int = 0) -> TrustedHeader:
        """The header of a height (0: the newest), with as few others as it takes.

        Raises UntrustedHeader, NotFound, Unavailable.
        """
        newest = (await self._signed(0)).header if height == 0 else None
        target = int(newest.commit.height) if newest else height
        try:
            return await self._follow(target, newest)
        except Unavailable:  # of the time before the snapshot from which a node began, it has few headers
            self._light_client.learn((await self._signed(target, with_way=True)).validator_changes)
            return await self._follow(target, newest)

    async def _follow(self, height: int, newest: SignedHeader | None) -> TrustedHeader:
        """Ask for what the light client needs, but not for ``newest`` again, which is here."""
        driver = self._light_client.verify(height)
        try:
            wanted = next(driver)
            while True:
                known = newest if newest and newest.commit.height == wanted else None
                wanted = driver.send(known or (await self._signed(wanted)).header)
        except StopIteration as end:
            found: TrustedHeader = end.value
            return found

    async def _signed(self, height: int, *, with_way: bool = False) -> GetSignedHeaderResponse:
        request = GetSignedHeaderRequest(height=height, with_way=with_way)
        return await self._connection.call(self._connection.audit.GetSignedHeader, request)
