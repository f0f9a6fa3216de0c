"""Translation by a language model behind an OpenAI-compatible address (chat completions)."""

import json
import os
import re
import time
import urllib.request
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote

from hybridbatch.common.addresses import split_address, without_secrets
from hybridbatch.common.errors import ConfigError, DataError, first_line
from hybridbatch.common.languages import language

KEY_VARIABLE = "HYBRIDBATCH_TRANSLATOR_KEY"
PARALLEL = 8  # requests at a time
TIMEOUT = 300.0  # seconds for one answer
PAUSES = (
    1.0,
    4.0,
    16.0,
    64.0,
)  # seconds before each further try, unless the server names a time
LONGEST_PAUSE = 300.0
_WRITABLE = re.compile(r"[!-~]+")  # the letters of an address
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_INSTRUCTION = (
    "You are a professional translator. Translate the user's message from {source} to {target},"
    " written in {script} script. Keep its meaning, names and numbers; add nothing and leave"
    " nothing out. If it is a question, translate the question and do not answer it. Reply with the"
    " translation alone."
)


class EndpointTranslator:
    """A chat model that is prompted to translate whole texts, at temperature 0."""

    def __init__(self, address: str) -> None:
        """Set the address.

        Raises:
            ConfigError: `address` is not ``http://HOST/v1#MODEL``.
        """
        base, mark, model = address.rpartition("#")
        base, self._model = (base, model) if mark else (address, "")
        parts = split_address(base)
        if parts is None or parts.fragment or not _WRITABLE.fullmatch(base):
            raise ConfigError(
                "translator: its address cannot be read (it may hold a password, so it is not"
                " shown); write http://HOST/v1#MODEL, and letters that addresses do not take as"
                " %23 (#), %2F (/), %40 (@) or %20 (blank)"
            )
        self._base = without_secrets(base).rstrip("/")
        if not self._model:
            raise ConfigError(
                f"translator = {without_secrets(address)!r}: names no model; write ADDRESS#MODEL,"
                f" such as {self._base}#gemma"
            )
        self._asked, self._login = f"{self._base}/chat/completions", ""
        if parts.query:
            self._asked += f"?{parts.query}"
        if parts.username or parts.password:
            login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._login = f"Basic {b64encode(login.encode()).decode()}"

    def describe(self) -> dict[str, Any]:
        """Address (without its secrets), model and instruction."""
        return {
            "kind": "endpoint",
            "name": self._model,
            "address": self._base,
            "instruction": _INSTRUCTION,
            "temperature": 0,
        }

    def speaks(self, language: str) -> bool:
        """Always true: only the output shows which languages the model knows."""
        return True

    def pieces(self, text: str, language: str) -> list[tuple[str, str]]:
        """The whole text as one piece, because context helps."""
        return [(text, "")]

    def batches(self, pieces: Sequence[str], source: str) -> list[list[int]]:
        """Batches of as many pieces as are requested at a time."""
        return [
            list(range(start, min(start + PARALLEL, len(pieces))))
            for start in range(0, len(pieces), PARALLEL)
        ]

    def translate(self, pieces: Sequence[str], source: str, target: str) -> list[str | None]:
        """Translations; None for an answer that was cut off.

        Raises:
            DataError: The server does not give a valid answer.
        """
        into = language(target)
        instruction = _INSTRUCTION.format(
            source=language(source).name, target=into.name, script=into.script or "its usual"
        )
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(lambda piece: self._ask(instruction, piece), pieces))

    def _ask(self, instruction: str, text: str) -> str | None:
        messages = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": text},
        ]
        body = json.dumps(
            {"model": self._model, "messages": messages, "temperature": 0}
        ).encode()
        request = urllib.request.Request(
            self._asked, body, {"Content-Type": "application/json"}
        )
        if key := os.environ.get(KEY_VARIABLE):
            # an unredirected header never goes to another host
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        elif self._login:
            request.add_unredirected_header("Authorization", self._login)
        pauses = iter(PAUSES)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                    return _content(answer.read())
            except urllib.error.HTTPError as error:
                status, wait = error.code, error.headers.get("Retry-After", "")
                reason, passing = f"answers {status} ({_said(error)})", status in _PASSING
            except _BadAnswer as error:
                reason, passing, wait = str(error), True, ""
            except HTTPException as error:  # such as an answer that was cut off
                reason = f"gives an answer that cannot be read ({first_line(error)})"
                passing, wait = True, ""
            except OSError as error:
                reason, passing, wait = (
                    f"cannot be reached ({getattr(error, 'reason', error)})",
                    True,
                    "",
                )
            pause = next(pauses, None)
            if pause is None or not passing:
                raise DataError(f"translator {self._base}: {reason}; {_mend(reason)}")
            time.sleep(min(float(wait), LONGEST_PAUSE) if wait.isdigit() else pause)


class _BadAnswer(Exception):
    """An answer that is not a chat completion."""


def _content(answer: bytes) -> str | None:
    try:
        choice = json.loads(answer)["choices"][0]
        content = choice["message"]["content"]
        finished = choice.get("finish_reason") != "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _BadAnswer(
            f"gives no chat completion but {answer[:80].decode(errors='replace')!r}"
        ) from error
    if not isinstance(content, str):
        raise _BadAnswer(f"gives {type(content).__name__} for a text")
    return content.strip() if finished else None


def _said(error: urllib.error.HTTPError) -> str:
    """The first line of the body of a refusal."""
    try:
        lines = error.read(2000).decode(errors="replace").strip().splitlines()
    except (OSError, HTTPException):
        lines = []
    return lines[0][:200] if lines else str(error.reason)


def _mend(reason: str) -> str:
    if reason.startswith(("answers 401", "answers 403")):
        return f"set {KEY_VARIABLE} to a key of this server"
    if reason.startswith("answers 404"):
        return "the address must end before /chat/completions, and the model after # must be one the server has"
    return "finished translations are kept, so run the same command again once it works"
