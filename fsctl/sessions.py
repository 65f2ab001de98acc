"""Sessions: which agent speaks for a router, and for how long without a word (docs/agent.md).

A session has an id that its agent chose and a lease that every call of it renews. When the lease is over, the
router's FIB is withdrawn, or first held for the session's grace: an agent that comes back then finds it there.
Times are seconds on the clock that the caller passes in; after a restart of fsctl every lease begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from fsctl.errors import ConflictError, FsctlError
from fsctl.status import Session, SessionRequest
from fsctl.store import Store

_LOG = logging.getLogger(__name__)


class Sessions:
    """The sessions of all routers, at most one each."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._sessions = {
            router: Session(router, s.id, s.lease_s, s.grace_s, now()) for router, s in store.load_sessions().items()
        }

    def get(self, router: str) -> Session | None:
        return self._sessions.get(router)

    def open(self, request: SessionRequest) -> Session:
        """Open, or renew with a heartbeat. Raises ConflictError while another session's lease runs, StoreError."""
        now, old = self._now(), self._sessions.get(request.router)
        if old is not None and old.id != request.id:
            if not old.is_over(now):
                raise ConflictError("another agent holds this router", field="id", value=request.id)
            old = None
        session = Session(request.router, request.id, request.lease_s, request.grace_s, now, request.reasons)
        if old is not None:
            session = replace(session, is_synced=old.is_synced, seq=old.seq)
        if old is None or (old.lease_s, old.grace_s) != (session.lease_s, session.grace_s):
            self._store.commit_session(session)
        self._sessions[request.router] = session
        return session

    def admit(self, router: str, id: str | None, seq: int | None, *, replaces: bool = False, is_admin: bool = False) -> None:
        """A write comes: from its session, in order, or from somebody who needs none. Raises ConflictError."""
        now, session = self._now(), self._sessions.get(router)
        if id is None:
            if session is not None and not is_admin and not session.is_over(now):
                raise ConflictError("an agent holds this router: its session is missing", field="session")
            if session is not None:  # the agent has to send its whole FIB again
                self._sessions[router] = replace(session, is_synced=False)
            return
        if session is None or session.id != id:
            raise ConflictError("this is not the router's session", field="session", value=id)
        if seq is not None and seq <= session.seq:
            raise ConflictError("a later write of this session was carried out already", field="seq", value=seq)
        session = replace(session, beat=now, seq=session.seq if seq is None else seq)
        self._sessions[router] = replace(session, is_synced=session.is_synced or replaces)

    def close(self, router: str, id: str) -> None:
        """End a session; the caller withdraws the FIB. Raises ConflictError, StoreError."""
        session = self._sessions.get(router)
        if session is None or session.id != id:
            raise ConflictError("this is not the router's session", field="session", value=id)
        self._forget(router)

    def expired(self) -> list[str]:
        """The routers whose lease and grace have run out; their sessions are forgotten."""
        now = self._now()
        gone = [name for name, session in self._sessions.items() if now > session.ends]
        for router in gone:
            try:
                self._forget(router)
            except FsctlError:
                _LOG.exception("router %s: the end of its session could not be stored", router)
        return gone

    def next_end(self) -> float:
        """When the next session runs out unless it is renewed."""
        return min((session.ends for session in self._sessions.values()), default=float("inf"))

    def _forget(self, router: str) -> None:
        del self._sessions[router]
        self._store.forget_session(router)
