"""A slow line: a TCP proxy that lets through so many bytes a second, each piece a little late."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from types import TracebackType
from typing import Self

PIECE, AHEAD = 8192, 4
"""Bytes that are taken at a time, and pieces that are under way in one direction of a connection; more stay with the sender."""
BUFFER = 32768
"""Of the sockets, in bytes: a system's own would swallow megabytes at once."""


class SlowLine:
    """To ``port`` on this machine. ``rates`` may be changed while it is in use; all connections share them, in turn."""

    def __init__(self, port: int, up: float, down: float, delay: float = 0.05) -> None:
        """``up`` and ``down``: bytes a second to the port and back. ``delay``: seconds."""
        self.rates, self._delay, self._to = {"up": up, "down": down}, delay, port
        self.passed = {"up": 0, "down": 0}
        self._free, self._turn = {"up": 0.0, "down": 0.0}, threading.Lock()
        self._sockets: list[socket.socket] = []
        self._door = socket.socket()
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._door.bind(("127.0.0.1", 0))
        self._door.listen()
        self.port = int(self._door.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()
        _close(self._door)

    def cut(self) -> None:
        """Break every connection; new ones are let in."""
        broken, self._sockets = self._sockets, []
        for one in broken:
            _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._to), timeout=10)
                far.settimeout(None)
                self._sockets += [near, far]
                for way, one, other in (("up", near, far), ("down", far, near)):
                    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(AHEAD)
                    threading.Thread(target=self._take, args=(way, one, pieces), daemon=True).start()
                    threading.Thread(target=self._give, args=(other, pieces), daemon=True).start()

    def _take(self, way: str, one: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = one.recv(PIECE)
            except OSError:
                data = b""
            self.passed[way] += len(data)
            with self._turn:  # the next free moment of the line is this piece's
                begins = max(time.monotonic(), self._free[way])
                self._free[way] = ends = begins + len(data) / self.rates[way]
            time.sleep(max(0.0, ends - time.monotonic()))
            pieces.put((ends + self._delay, data))

    @staticmethod
    def _give(other: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            due, data = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            with contextlib.suppress(OSError):
                if data:
                    other.sendall(data)
                else:
                    other.shutdown(socket.SHUT_WR)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
