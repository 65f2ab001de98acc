"""docs/rest.md is true: every curl of it is run in order, and answers what stands there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import falcon.testing

from fsctl.northbound import make_app
from fsctl.northbound.resources import ROUTES
from tests.rest.conftest import auth
from tests.rest.fake import FakeBackend

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rest.md"
NAMES = {"$URL": "http://fsctl", "$ADMIN": "admin-token", "$VR1": "vr1-token"}
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FLAGS = {"-X": "method", "-H": "header", "-d": "body"}


def examples(page: str) -> Iterator[tuple[str, str]]:
    """(command, answer) of each `$ curl`, in order."""
    for block in _BLOCK.findall(page):
        for example in block.split("$ curl ")[1:]:
            lines = example.splitlines(keepends=True)
            # The command ends at the first line that closes all quotes and has no backslash at its end.
            for end in range(1, len(lines) + 1):
                command = "".join(lines[:end])
                if command.count("'") % 2 == 0 and not command.endswith("\\\n"):
                    yield command.replace("\\\n", " "), "".join(lines[end:])
                    break


def run(client: falcon.testing.TestClient, command: str) -> Any:
    """What the application answers to the arguments of a curl."""
    for name, value in NAMES.items():
        command = command.replace(name, value)
    method, headers, body, url = "GET", {}, None, ""
    words = iter(shlex.split(command))
    for word in words:
        match _FLAGS.get(word, word):
            case "method":
                method = next(words)
            case "header":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "body":
                body = next(words)
            case "-s":
                pass
            case _:
                url = word
    parts = urlsplit(url)
    return client.simulate_request(method, parts.path, query_string=parts.query, headers=headers, body=body).json


def test_every_example_answers_as_written() -> None:
    client = falcon.testing.TestClient(make_app(FakeBackend(), auth()))
    shown = list(examples(PAGE.read_text()))
    assert len(shown) > 10
    for command, answer in shown:
        assert run(client, command) == json.loads(answer), command


def test_every_path_is_there() -> None:
    page = PAGE.read_text().replace("{r}", "{router}").replace("{i}", "{interface}")
    for path, _ in ROUTES:
        assert f"{path}`" in page, path
