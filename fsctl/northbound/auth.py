"""Who asks: bearer tokens (RFC 6750), of which fsctl knows the SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from fsctl.config import Config
from fsctl.errors import ForbiddenError, UnauthorizedError


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a token: a router, or the administrator (`router` None)."""

    router: str | None = None

    @property
    def is_admin(self) -> bool:
        return self.router is None

    def __str__(self) -> str:
        return self.router or "admin"

    def check_router(self, router: str) -> None:
        """Raises ForbiddenError unless this is the administrator or that router, whether there is such a router or not."""
        if self.router not in (None, router):
            raise ForbiddenError(f"this token is {self.router}'s and reaches only that router", field="router", value=router)

    def check_admin(self) -> None:
        """Raises ForbiddenError unless this is the administrator."""
        if not self.is_admin:
            raise ForbiddenError("only the administrator's token may ask this: the answer speaks of all routers")


class Auth:
    """All tokens, as SHA-256 in hex."""

    def __init__(self, admin_sha256: str, routers: Mapping[str, str]) -> None:
        self._owners = [(admin_sha256, Principal()), *((digest, Principal(name)) for name, digest in routers.items())]

    @classmethod
    def of(cls, config: Config) -> Auth:
        """As the configuration says."""
        routers = {name: r.token_sha256 for name, r in config.routers.items() if r.token_sha256 is not None}
        return cls(config.admin_token_sha256, routers)

    def identify(self, header: str | None) -> Principal:
        """Who sent this Authorization header; raises UnauthorizedError."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("expected the header Authorization: Bearer TOKEN")
        # WSGI hands headers over as Latin-1 (PEP 3333).
        digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).hexdigest()
        found = [owner for known, owner in self._owners if hmac.compare_digest(known, digest)]
        if not found:
            raise UnauthorizedError("nobody has this token")
        return found[0]
