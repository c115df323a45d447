"""A Hugging Face Hub on this machine: as much of its HTTP interface as uploads and downloads of small files need."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@contextmanager
def small_hub(files):
    """Serve `files`, {(repository, path): bytes}; uploads are added to it. Yields the address."""

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self, status, body=b"", headers=()):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def answer_json(self, value):
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def do_GET(self):
            owner, name, resolve, _, path = self.path.partition("?")[0].strip("/").split("/", 4)
            content = files.get((f"{owner}/{name}", path)) if resolve == "resolve" else None
            if content is None:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                about = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                self.answer(200, content, about)

        def do_HEAD(self):
            self.do_GET()

        def do_POST(self):
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[-1] == "create":
                self.answer_json({"url": f"http://{self.headers['Host']}/me/ticket"})
            elif "preupload" in parts:
                names = [each["path"] for each in json.loads(body)["files"]]
                modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                self.answer_json({"files": modes})
            elif "commit" in parts:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        files["/".join(parts[2:4]), value["path"]] = base64.b64decode(value["content"])
                self.answer_json(
                    {
                        "commitUrl": f"http://{self.headers['Host']}/me/ticket/commit/a",
                        "commitOid": COMMIT,
                        "success": True,
                    }
                )
            else:  # validate-yaml
                self.answer_json({"errors": [], "warnings": []})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
