"""A small server of chat completions on this machine, with the answers that a test gives it."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SENTENCE = "The person doing {} lifts one arm beside the head and moves the open hand from side to side"
PARTS = "head: {0} stays upright and faces straight ahead\narms: {0} rises up and sinks back down again\n"
PARTS += "torso: {0} stays upright with a little sway\nlegs: {0} stand still a little way apart"
HANDS = ("left", "right", "open", "raised", "flat", "free", "other", "near")


def chat(content, **more):
    """A server's answer, as chat completions have it."""
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": content}, **more}]}


def knows(prompt):
    """What a good model answers to each of the questions."""
    name = re.search("'([^']*)'", prompt)[1]
    if "sentence" in prompt:
        return SENTENCE.format(name) + "."
    if "four lines" in prompt:
        return PARTS.format(name)
    return "\n".join(f"{i}. {name} with the {hand} hand" for i, hand in enumerate(HANDS, 1))


class Server:
    """Answers with `answers` one after another, the last again and again: (status, headers, body) or a function."""

    def __init__(self):
        self.asked, self.answers = [], [lambda prompt: chat(knows(prompt))]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, dict(self.headers), content))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, headers, body = answer(content["messages"][0]["content"]) if callable(answer) else answer
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):  # where a redirect that is followed would come back
                outer.asked.append((self.path, dict(self.headers), None))
                self.send_error(405)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def prompts(self):
        return [content["messages"][0]["content"] for _, _, content in self.asked]

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
