"""How processes notice that one of them is gone, even while they wait or compute.

A process that waits for another on a GPU waits in the driver: no timeout short enough to be of use
tells one that is lost from one that prepares data for an hour. Here every process holds a
connection to the first one. The system closes the connections of a process that dies, however it
dies; of a machine that dies, TCP's keepalive finds out. The first process passes the news on.
"""

import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

GRACE = 10.0  # seconds for a process to end by itself, with an error of its own
PROBE_AFTER, PROBE_EVERY, PROBES = (
    10,
    5,
    4,
)  # seconds, seconds, number: lost after 30 s of silence
CONNECT = 60.0  # seconds that processes have to connect
GOODBYE, NEWS = b"G", b"N"
HELD: list[
    "Lifeline"
] = []  # open until the process ends: closing them is what tells the others


class Lifeline:
    """The connections of this process.

    Args:
        peers: to all others on the first process, to the first process elsewhere.
        lost: what to tell the user when another process is gone; None: another tells.
    """

    def __init__(
        self, peers: list[socket.socket], leads: bool, lost: Callable[[], str | None]
    ) -> None:
        self._peers, self._leads, self._lost = peers, leads, lost
        self._leaving = False
        for peer in peers:
            _probe(peer)
        HELD.append(self)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    @classmethod
    def between(
        cls, rank: int, size: int, most: Callable[[int], int], lost: Callable[[], str | None]
    ) -> "Lifeline":
        """Connect all processes, which all call this.

        Args:
            most: the largest number of any process, through what they already meet over.
        """
        if rank == 0:
            with socket.create_server(("", 0)) as server:
                server.settimeout(CONNECT)
                most(server.getsockname()[1])
                peers = [server.accept()[0] for _ in range(size - 1)]
        else:
            address = os.environ["MASTER_ADDR"], most(0)
            peers = [socket.create_connection(address, timeout=CONNECT)]
        for peer in peers:
            peer.settimeout(None)
        return cls(peers, rank == 0, lost)

    def leave(self) -> None:
        """End the connections in agreement: the others do not miss this process."""
        self._leaving = True
        self._say(GOODBYE)

    def _say(self, word: bytes) -> None:
        for peer in self._peers:
            try:
                peer.sendall(word)
            except OSError:  # gone already
                continue

    def _watch(self) -> None:
        """Wait for words and ends of connections, for as long as this process lives."""
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ, peer)
            while selector.get_map():
                for key, _ in selector.select():
                    peer = key.data
                    try:
                        word = peer.recv(1)
                    except OSError:
                        word = b""
                    if word == GOODBYE:
                        selector.unregister(peer)
                    elif not self._leaving:
                        self._end()
                    else:
                        selector.unregister(peer)

    def _end(self) -> None:
        """Another process is gone: pass it on, and end this one if it does not end by itself."""
        if self._leads:
            self._say(NEWS)
        time.sleep(GRACE)
        if self._leaving:
            return
        message = self._lost()
        if message is not None:
            sys.stderr.write(f"error: {message}\n")
            sys.stderr.flush()
        os._exit(2)


def _probe(peer: socket.socket) -> None:
    """Have the system ask now and then whether the other machine is there."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (
        ("TCP_KEEPIDLE", PROBE_AFTER),
        ("TCP_KEEPINTVL", PROBE_EVERY),
        ("TCP_KEEPCNT", PROBES),
    )
    for name, value in options:
        option = getattr(socket, name, None)  # not on every system
        if option is not None and peer.family != getattr(socket, "AF_UNIX", None):
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
