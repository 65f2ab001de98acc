"""The application over a fake controller, without a socket."""

from __future__ import annotations

import hashlib

import falcon.testing
import pytest

from fsctl.northbound import Auth, make_app
from tests.rest.fake import FakeBackend

ADMIN, VR1, VR2 = ({"Authorization": f"Bearer {name}-token"} for name in ("admin", "vr1", "vr2"))
MAX_BODY = 100_000


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def auth() -> Auth:
    return Auth(digest("admin-token"), {name: digest(f"{name}-token") for name in ("vr1", "vr2")})


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def rest(backend: FakeBackend) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(make_app(backend, auth(), max_body=MAX_BODY, patience_s=1.0))


def flow(dst: str = "10.0.2.0/24", **changes: object) -> dict[str, object]:
    """A good flow of vr1."""
    version = "ipv6_dst" if ":" in dst else "ipv4_dst"
    good = {
        "match": {"in": "eth0", version: dst},
        "action": "forward",
        "set": {"eth_dst": "02:00:00:00:02:01"},
        "out": "eth1",
    }
    return good | changes
