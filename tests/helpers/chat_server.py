"""An OpenAI-compatible endpoint on this machine that says Swahili or Amharic sentences, and fails
when told.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes, dict[str, str]]


def says(text: str, language: str) -> str:
    """The endpoint's translation: a fixed function of text and language, which tells texts apart by
    their last word.
    """
    mark = text.split()[-1].strip(".?!")
    return {
        "Swahili": f"Wanyama wengi wanaishi katika msitu huu mkubwa wa {mark}.",
        "Amharic": f"በዚህ ትልቅ ጫካ ውስጥ ብዙ እንስሳት ይኖራሉ {mark}።",
    }[language]


def completion(content: object, finish: str = "stop") -> bytes:
    return json.dumps(
        {"choices": [{"message": {"content": content}, "finish_reason": finish}]}
    ).encode()


class ChatServer:
    """Requests, in order, and what to do with the next ones."""

    def __init__(self) -> None:
        self.asked: list[str] = []  # texts
        self.answered: list[str] = []
        self.keys: list[str | None] = []
        self.bodies: list[dict] = []
        self.faults: list[Answer] = []  # for the next requests
        self.refuse: Callable[[str], Answer | None] = lambda text: None
        self.lock = threading.Lock()
        self.address = ""

    def answer(self, path: str, key: str | None, body: dict) -> Answer:
        text = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append(text)
            self.keys.append(key)
            self.bodies.append(body)
            if path != "/v1/chat/completions":
                return 404, b"no such path", {}
            if self.faults:
                return self.faults.pop()
            refusal = self.refuse(text)
            if refusal is None:
                self.answered.append(text)
        language = body["messages"][0]["content"].partition(" to ")[2].partition(",")[0]
        return refusal or (200, completion(says(text, language)), {})


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content, headers = state.answer(
                self.path, self.headers.get("Authorization"), body
            )
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that was killed
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
