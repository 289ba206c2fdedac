"""Takes webhooks on port 8000 and prints the id of each; runs alone in a container, so it imports nothing of ours."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

THINKS = 0.05  # seconds before it answers


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer 200 after a moment."""
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(THINKS)
        print(f"{self.headers['webhook-id']}\n", end="")  # noqa: T201 - in one write: other threads print too
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Print nothing but ids."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
