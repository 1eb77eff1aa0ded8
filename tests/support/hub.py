"""A Hugging Face Hub on loopback: the calls with which its library makes, fills and reads repositories."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

Files = dict[str, bytes]


class Hub:
    """Repositories: {name: {revision: {path: contents}}}; the newest commits, which are revisions, too."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Files]] = {}
        self.newest: dict[str, str] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.endpoint = ""

    def create(self, name: str) -> None:
        self.repositories.setdefault(name, {"main": {}})

    def commit(self, name: str, revision: str, lines: list[dict]) -> str:
        """Apply the lines of a commit and return its identity."""
        files = dict(self.repositories[name].get(revision, {}))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories[name] |= {revision: files, sha: files}
        self.newest[name] = sha
        return sha


class Handler(BaseHTTPRequestHandler):
    """Answers of the `Hub` that `hub_server` sets."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""

    def _answer(self, body: bytes | dict | list, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: str, message: str) -> None:
        self._answer({"error": message}, 404, X_Error_Code=code, X_Error_Message=message)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        return path.strip("/").split("/")

    def do_POST(self) -> None:
        parts = self._parts()
        body = self._body()
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            self.hub.create(name)
            self._answer({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})
        elif parts[-4:] == ["info", "lfs", "objects", "batch"]:
            objects = [
                item | {"actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif parts == ["api", "validate-yaml"]:
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            errors = [] if head.get("library_name") else [{"message": "no library"}]
            self._answer({"errors": errors, "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".gif")) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif parts[4] == "commit":
            name = "/".join(parts[2:4])
            sha = self.hub.commit(name, parts[5], [json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.endpoint}/{name}/commit/{sha}"
            self._answer({"success": True, "commitOid": sha, "commitUrl": url})
        else:
            self._refuse("Unknown", f"no such call: {self.path}")

    def do_PUT(self) -> None:
        oid = self._parts()[1]
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.large[oid] = data
        self._answer(b"")

    def do_GET(self) -> None:
        parts = self._parts()
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.hub.repositories:
            self._refuse("RepoNotFound", "Repository not found")
            return
        revision = (
            parts[5] if parts[0] == "api" and len(parts) > 5 else parts[3] if parts[0] != "api" else "main"
        )
        if revision not in self.hub.repositories[name]:
            self._refuse("RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = self.hub.repositories[name][revision]
        sha = next(
            key for key, value in self.hub.repositories[name].items() if value is files and len(key) == 40
        )
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            self._answer(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ]
            )
        elif parts[0] == "api":
            siblings = [{"rfilename": path} for path in files]
            self._answer({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})
        elif (path := "/".join(parts[4:])) in files:
            data = files[path]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self._answer(data, X_Repo_Commit=sha, ETag=etag)
        else:
            self._refuse("EntryNotFound", "Entry not found")

    do_HEAD = do_GET


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return the variables with which the Hub's library speaks to this one, as somebody who is logged in."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_own",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@contextlib.contextmanager
def hub_server() -> Generator[Hub]:
    """Yield a Hub that listens on loopback."""
    hub = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
