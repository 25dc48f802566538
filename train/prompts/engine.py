"""The knowledge engine's seam: something that answers a question in words, and answers that are kept.

An engine is anything with a `name` and `ask`; `Endpoint` asks any server of the OpenAI-compatible kind (hosted, or
local such as llama.cpp, vLLM or Ollama), train.prompts.local runs a model in this process. `Remembered` keeps answers.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from realtime.errors import SourceError, UsageError
from train.checkpoint import make_folder, write_json
from train.prompts.questions import AnswerError

log = logging.getLogger(__name__)

TEMPERATURE = 0.1  # low: the same question should get the same answer
KEY_ENV = "PCLE_API_KEY"
ANSWER_BYTES = 1 << 20  # no answer of ours is near this; a longer one is no answer
ANSWER_TOKENS = 2048
BUSY = {408, 409, 425, 429, 500, 502, 503, 504}  # statuses that a later try may mend
WAIT_S = (1.0, 60.0)  # first and longest wait between tries; each is twice the last
SCHEMA = "answer/1"


class KnowledgeEngine(Protocol):
    """Something that answers in words."""

    @property
    def name(self) -> str:
        """What its answers are kept and credited under."""

    def ask(self, prompt: str) -> str:
        """The answer to one question.

        Raises AnswerError where it is empty or cut, UsageError where asking again would not help, SourceError where
        it might later.
        """


class Endpoint:
    """A server's /v1/chat/completions.

    url: the server (http://host:8000), its /v1, or the whole address. key_env: the environment variable with its key;
    where that is not set, no key is sent. timeout_s: of one try. tries: how often a busy or unreachable server is
    asked, with waits that double from 1 s or that the server names. sleep: waits so many seconds.
    The key goes to this address only (redirects are refused) and into no message, log or file.
    """

    def __init__(
        self, url: str, model: str, key_env: str = KEY_ENV, timeout_s: float = 120.0, tries: int = 5,
        temperature: float = TEMPERATURE, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.name = model
        self.url = _address(url)
        self._key_env, self._timeout_s, self._tries = key_env, timeout_s, tries
        self._temperature, self._sleep = temperature, sleep
        self._key = os.environ.get(key_env, "").strip()
        host = urllib.parse.urlsplit(self.url).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"the key in {key_env} holds characters that no key has; set it again")
        if self._key and not here and self.url.startswith("http:"):
            log.warning("the key in %s goes to %s unencrypted; an https address would protect it", key_env, host)
        # A proxy is for other machines.
        proxies = [urllib.request.ProxyHandler({})] if here else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def ask(self, prompt: str) -> str:
        """The answer's text; errors as KnowledgeEngine has them."""
        question = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._temperature,
            "max_tokens": ANSWER_TOKENS,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "pcle-live"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, json.dumps(question).encode(), headers, method="POST")
        wait_s = WAIT_S[0]
        for left in range(self._tries - 1, -1, -1):
            try:
                with self._opener.open(request, timeout=self._timeout_s) as response:
                    return self._content(_whole(response))
            except urllib.error.HTTPError as error:
                with error:
                    trouble = self._refusal(error)
                    named_s = _retry_after_s(error.headers.get("Retry-After"))
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                trouble, named_s = self._unreachable(error), None
            if left:
                pause_s = min(WAIT_S[1], wait_s if named_s is None else named_s)
                log.warning("%s; asking again in %.0f s, %d tries left", trouble, pause_s, left)
                self._sleep(pause_s)
                wait_s *= 2
        raise SourceError(f"{trouble}, {self._tries} times; give the same command later, answers so far are kept")

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        """What a busy server said; UsageError where it will say so again."""
        try:
            said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:200]
        except (OSError, http.client.HTTPException):
            said = ""
        said = f"{error.code} {error.reason}" + (f": {self._without_key(said)}" if said else "")
        if error.code in BUSY:
            return f"{self.url} is busy or broken ({said})"
        if error.code in (401, 403):
            if not self._key:
                raise UsageError(f"{self.url} wants a key ({said}); put it into the environment as {self._key_env}")
            raise UsageError(f"{self.url} refuses the key in {self._key_env} ({said}); set one that it accepts")
        if error.code == 404:
            raise UsageError(f"{self.url} knows no such address or no model {self.name!r} ({said}); correct either")
        if 300 <= error.code < 400:
            to = self._without_key(error.headers.get("Location") or "nowhere")
            raise UsageError(f"{self.url} sends elsewhere ({error.code}): to {to}; give that address if you trust it")
        raise UsageError(f"{self.url} refuses the question ({said}); check --model, or try another")

    def _unreachable(self, error: Exception) -> str:
        """What went wrong on the way."""
        why = getattr(error, "reason", error)
        if isinstance(why, TimeoutError):
            return f"{self.url} did not answer within {self._timeout_s:g} s"
        return f"{self.url} cannot be reached ({self._without_key(str(why) or type(why).__name__)})"

    def _content(self, body: bytes) -> str:
        """The text in a server's answer."""
        if len(body) > ANSWER_BYTES:
            raise UsageError(f"{self.url} answers with more than {ANSWER_BYTES} bytes; that is no chat answer")
        start = repr(self._without_key(body.decode("utf-8", "replace"))[:120])
        try:
            answer: Any = json.loads(body)
        except ValueError as error:
            raise UsageError(f"{self.url} does not answer in JSON but {start}; give the address of an API") from error
        try:
            choice = answer["choices"][0]
            content, ended = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.url} answers in JSON, but not as chat completions do: {start}") from error
        if ended == "length":
            raise AnswerError("it was too long")
        if not isinstance(content, str) or not content.strip():
            raise AnswerError("it was empty")
        return content

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "<key>") if self._key else text


class Remembered:
    """An engine whose answers are kept in a folder, a JSON file each, and asked for only once.

    A file is named by the sha256 of model and question, and may be corrected by hand. asked: questions that went to
    the engine; known: those that a file answered.
    """

    def __init__(self, engine: KnowledgeEngine, folder: Path) -> None:
        self._engine, self.folder = engine, folder
        self.asked = self.known = 0
        make_folder(folder)

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    def file(self, prompt: str) -> Path:
        """Where the answer to a question is kept."""
        key = json.dumps([self.name, prompt]).encode()
        return self.folder / f"{hashlib.sha256(key).hexdigest()}.json"

    def ask(self, prompt: str) -> str:
        """The kept answer, or else the engine's, which is kept at once. A broken file is asked for again."""
        path = self.file(prompt)
        answer = self._kept(path, prompt)
        if answer is not None:
            self.known += 1
            return answer
        answer = self._engine.ask(prompt)
        self.asked += 1
        write_json(path, {"schema": SCHEMA, "model": self.name, "prompt": prompt, "answer": answer})
        return answer

    def _kept(self, path: Path, prompt: str) -> str | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if (content["schema"], content["model"], content["prompt"]) == (SCHEMA, self.name, prompt):
                return str(content["answer"])
            fault = "it is of another question"
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}); give another --answers folder") from error
        except (ValueError, KeyError, TypeError) as error:
            fault = repr(error)
        log.warning("%s is no kept answer (%s); asking again", path, fault)
        return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the key on to wherever a server points, and turn the question into a plain GET."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


def _whole(response: http.client.HTTPResponse) -> bytes:
    """The body, of which a piece too long is enough; IncompleteRead where the server hung up within it."""
    body = response.read(ANSWER_BYTES + 1)
    if response.length and len(body) <= ANSWER_BYTES:  # reading up to a size, http.client lets that pass
        raise http.client.IncompleteRead(body, response.length)
    return body


def _address(url: str) -> str:
    """The whole address of chat completions. UsageError where there is no http or https host in it."""
    parts = urllib.parse.urlsplit(url)
    try:
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        fine = False
    if not fine or parts.username or parts.password or not (url.isascii() and url.isprintable()) or " " in url:
        shown = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        raise UsageError(f"endpoint must be such as http://127.0.0.1:8000/v1, without user or password, got {shown!r}")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path else "/v1/chat/completions"
    return urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))


def _retry_after_s(value: str | None) -> float | None:
    """Seconds that a server asks to wait; None where it does not, or names a date."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 else None
