"""Sessions: which agent speaks for a router, and how long its lease runs without a heartbeat (docs/agent.md).

A session has an id that its agent chose and a lease that every call renews. When lease and grace are over, the router's
FIB is withdrawn; an agent that comes back within the grace finds it unchanged. The controller's loop admits a session's
writes in order (`admit`), and only a write that was carried out changes `seq` and `is_synced` (`carried_out`).
Times are seconds on the clock that the caller passes in; after a restart of fsctl every lease begins anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from fsctl.errors import ConflictError, FsctlError, UnsyncedError
from fsctl.status import Authored, Session, SessionRequest

_LOG = logging.getLogger(__name__)


class SessionStore(Protocol):
    """The part of a store that sessions need; see `store.Store`."""

    def load_sessions(self) -> dict[str, Session]: ...
    def commit_session(self, session: Session) -> None: ...
    def forget_session(self, router: str) -> None: ...


class Sessions:
    """The sessions of all routers, at most one each."""

    def __init__(self, store: SessionStore, now: Callable[[], float], wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called when `next_end` may have become earlier."""
        self._store, self._now, self._wake = store, now, wake
        self._sessions = {
            router: Session(router, s.id, s.lease_s, s.grace_s, now(), opened=time.time())
            for router, s in store.load_sessions().items()
        }

    def get(self, router: str) -> Session | None:
        return self._sessions.get(router)

    def open(self, request: SessionRequest) -> Session:
        """Open a session, or renew it (heartbeat). Raises ConflictError while another session's lease runs, and StoreError."""
        now, before = self._now(), self._sessions.get(request.router)
        if before is not None and before.id != request.id and not before.is_over(now):
            raise ConflictError("another agent holds this router", field="id", value=request.id)
        times = request.lease_s, request.grace_s, now
        session = Session(request.router, request.id, *times, request.reasons, seq=request.seq, opened=time.time())
        is_ours = before is not None and before.id == request.id
        if before is not None and is_ours:
            session = replace(session, is_synced=before.is_synced, seq=before.seq, opened=before.opened)
        # In memory first: others run while the store works, and must find the router taken.
        self._sessions[request.router] = session
        if before is None or not is_ours or (before.lease_s, before.grace_s) != (session.lease_s, session.grace_s):
            self._wake()
            self._store_or_undo(session, before)
        return self._sessions.get(request.router, session)

    def _store_or_undo(self, session: Session, before: Session | None) -> None:
        try:
            self._store.commit_session(session)
        except FsctlError:
            if self._sessions.get(session.router) is session:
                if before is None:
                    del self._sessions[session.router]
                else:
                    self._sessions[session.router] = before
            raise

    def check(self, change: Authored) -> Session | None:
        """The session that a change belongs to, if any. Raises ConflictError if it is not the router's, or the change is late."""
        session = self._sessions.get(change.router)
        if change.session is None:
            if session is not None and not change.is_admin and not session.is_over(self._now()):
                raise ConflictError("an agent holds this router: its session is missing", field="session")
            return None
        if session is None or session.id != change.session:
            raise ConflictError("this is not the router's session", field="session", value=change.session)
        if change.seq is not None and change.seq <= session.seq:
            raise ConflictError("a later write of this session was carried out already", field="seq", value=change.seq)
        return session

    def admit(self, change: Authored, *, needs_sync: bool = False) -> None:
        """Check a change whose turn has come, and renew the lease. Raises as `check`, and UnsyncedError with `needs_sync`
        (the change is relative to the FIB) if the session has not sent its whole FIB.
        """
        session = self.check(change)
        if session is None:
            return
        self._sessions[change.router] = replace(session, beat=self._now())
        if needs_sync and not session.is_synced:
            detail = "this session has not sent its whole table since it was opened; send PUT flows first"
            raise UnsyncedError(detail, field="session", value=change.session)

    def carried_out(self, change: Authored, *, replaces: bool = False) -> None:
        """An admitted change is durable: now its session's `seq` and `is_synced` follow."""
        session = self._sessions.get(change.router)
        if session is None:
            return
        if change.session is None:  # from outside the session: its agent has to send its whole FIB again
            self._sessions[change.router] = replace(session, is_synced=False)
        elif session.id == change.session:
            seq = session.seq if change.seq is None else max(session.seq, change.seq)
            self._sessions[change.router] = replace(session, seq=seq, is_synced=session.is_synced or replaces)

    def end(self, router: str, id: str) -> None:
        """Forget a session whose delegations were withdrawn, unless another one was opened meanwhile."""
        session = self._sessions.get(router)
        if session is not None and session.id == id:
            self._forget_safely(router)

    def expired(self) -> list[str]:
        """The routers whose lease and grace are over; forgets their sessions."""
        now = self._now()
        gone = [name for name, session in self._sessions.items() if now > session.ends]
        for router in gone:
            self._forget_safely(router)
        return gone

    def next_end(self) -> float:
        """When the first session ends unless it is renewed; infinite if there is none."""
        return min((session.ends for session in self._sessions.values()), default=float("inf"))

    def _forget_safely(self, router: str) -> None:
        """Forget a session. If the store fails, the session has one more lease after a restart, which does no harm."""
        del self._sessions[router]
        try:
            self._store.forget_session(router)
            current = self._sessions.get(router)
            if current is not None:  # another session was opened meanwhile: its row was deleted too
                self._store.commit_session(current)
        except FsctlError as e:
            _LOG.error("router %s: the end of its session could not be stored: %s", router, e)
