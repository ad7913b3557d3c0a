"""A proxy before a bucket that makes calls fail, each in one of the ways in which networks fail."""

import http.client
import random
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("error", "late error", "slow down", "drop", "late drop", "cut answer", "cut upload")
SKIP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


class Proxy:
    """Passes calls on, some of them badly; `counted` says how many of each kind there were.

    Args:
        target: the endpoint of the bucket.
        share: of the calls that fail.
        faults: kinds to draw from.
        seed: of what is drawn.
    """

    def __init__(self, target, *, share=0.0, faults=FAULTS, seed=0):
        self.target, self.share, self.faults = urlsplit(target), share, faults
        self.random, self.counted, self.calls = random.Random(seed), Counter(), []
        self.one = threading.Lock()  # conditional puts are atomic in a bucket; in moto they are not
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.proxy = True, self
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def fault(self, method):
        """Draw what happens to a call; None: nothing."""
        with self.one:
            self.counted["calls"] += 1
            if self.random.random() >= self.share:
                return None
            kind = self.random.choice(self.faults)
            if kind == "cut upload" and method not in ("PUT", "POST"):
                kind = "drop"
            if kind == "cut answer" and method in ("HEAD", "DELETE"):
                kind = "late drop"
            self.counted[kind] += 1
            return kind

    def forward(self, method, path, headers, body):
        with self.one:
            self.calls.append((method, path))
            link = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=30)
            try:
                link.request(method, path, body, headers)
                answer = link.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                link.close()


class Handler(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:  # the client went away
            self.close_connection = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self._pass
        raise AttributeError(name)

    def _pass(self):
        proxy = self.server.proxy
        kind = proxy.fault(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length // 2 if kind == "cut upload" else length)
        if kind in ("cut upload", "drop"):
            return self._hang_up()
        if kind in ("error", "slow down"):
            return self._answer(503 if kind == "slow down" else 500)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in SKIP}
        status, given, data = proxy.forward(self.command, self.path, headers, body)
        if kind == "late error":  # done, and not said so
            return self._answer(500)
        if kind == "late drop":
            return self._hang_up()
        return self._answer(status, given, data, cut=kind == "cut answer" and len(data) > 1)

    def _answer(self, status, headers=(), data=b"", *, cut=False):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in SKIP or (name == "Content-Length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
