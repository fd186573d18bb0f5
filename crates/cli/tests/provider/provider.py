"""A provider in memory, of the standard library alone: it runs nothing, and forgets everything when it ends.

Written from docs/provider.md. `provider.py TOKEN` prints its address. It claims files, data and logs.
"""

import base64
import hashlib
import hmac
import io
import json
import sys
import tarfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOTS = ("configs", "workspace", "home", "plugins")
LOCK = threading.RLock()
INSTANCES = {}  # (workspace, generation) -> {"handle", "state"}
FILES = {}  # workspace -> {(root, path): bytes}
TOKEN = sys.argv[1]


class Refused(Exception):
    def __init__(self, kind, error):
        self.status = {"transient": 503, "broken": 422, "missing": 404, "unsupported": 501}[kind]
        self.body = {"error": error, "kind": kind}


def travels(root, path):
    return root in ("workspace", "home") or (root == "configs" and not path.startswith(".auth_token"))


def data(workspace):
    if workspace not in FILES:
        raise Refused("missing", "there is no data of this workspace")
    return sorted((key, content) for key, content in FILES[workspace].items() if travels(*key))


def amount(files):
    digest = hashlib.sha256()
    for (root, path), content in files:
        for part in (root.encode(), path.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return {"digest": digest.hexdigest(), "entries": len(files), "bytes": sum(len(it) for _, it in files)}


def archive(workspace):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for (root, path), content in data(workspace):
            entry = tarfile.TarInfo(f"{root}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def unpacked(content):
    """What an archive holds; one that is not whole holds nothing."""
    if not content.endswith(bytes(1024)):
        raise Refused("broken", "this is no whole archive")
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for entry in tar:
                root, _, path = entry.name.partition("/")
                if entry.isfile() and travels(root, path) and ".." not in path.split("/"):
                    found[root, path] = tar.extractfile(entry).read()
    except tarfile.TarError as cause:
        raise Refused("broken", f"this is no archive: {cause}") from None
    return found


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=None):
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("ligand-provider", "1")
        if status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        content = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
            content += self.rfile.read(size)
            if len(self.rfile.readline()) != 2:
                raise Refused("broken", "the body broke off")
            if size == 0:
                return content

    def handle_call(self):
        try:
            # Read whatever comes of it: the next call is on the same connection.
            body = self.body()
            presented = self.headers.get("authorization", "")
            if not hmac.compare_digest(presented.encode(), f"Bearer {TOKEN}".encode()):
                self.answer(401, {"error": "expected the provider's token", "kind": "broken"})
                return
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
            with LOCK:
                done = self.route(parts, query, body)
            self.answer(204 if done is None else 200, done)
        except Refused as refused:
            self.answer(refused.status, refused.body)
        except (ValueError, KeyError) as cause:
            self.close_connection = True
            self.answer(400, {"error": f"not understood: {type(cause).__name__}", "kind": "broken"})

    do_GET = do_POST = do_PUT = do_DELETE = handle_call

    def route(self, parts, query, body):
        match (self.command, *parts):
            case ("GET", "v1"):
                return {"protocol": 1, "kind": "memory", "says": "runs nothing, in Python",
                        "delivery": "file", "can": ["files", "data", "logs"]}
            case ("POST", "v1", "recover"):
                return None
            case ("GET", "v1", "instances"):
                return {"instances": [{"workspace": w, "generation": g} for w, g in INSTANCES]}
            case ("POST", "v1", "instances"):
                return self.start(json.loads(body))
            case ("GET", "v1", "workspaces"):
                return {"workspaces": list(FILES)}
            case (_, "v1", "instances", workspace, generation, *rest):
                return self.instance((workspace, int(generation)), rest)
            case (_, "v1", "workspaces", workspace, *rest):
                return self.workspace(workspace, rest, query, body)
        raise Refused("unsupported", "there is no such route here")

    def start(self, start):
        key = start["workspace"], start["generation"]
        if key not in INSTANCES:
            files = FILES.setdefault(key[0], {})
            for path, content in start["files"].items():
                files["configs", path] = base64.b64decode(content)
            if start["credential"] is not None:
                files["configs", ".auth_token"] = start["credential"].encode()
            INSTANCES[key] = {"handle": f"memory-{key[0]}-{key[1]}", "state": {"state": "running"}}
        return {"handle": INSTANCES[key]["handle"], "address": None}

    def instance(self, key, rest):
        found = INSTANCES.get(key)
        match (self.command, *rest):
            case ("GET",):
                return {"instance": found and {"handle": found["handle"], "address": None}}
            case ("GET", "state"):
                return found["state"] if found else {"state": "gone"}
            case ("POST", "stop"):
                if found and found["state"]["state"] == "running":
                    found["state"] = {"state": "stopped", "code": 0, "signal": None, "said": None}
                return None
            case ("DELETE",):
                INSTANCES.pop(key, None)
                return None
        raise Refused("unsupported", "there is no such route here")

    def workspace(self, workspace, rest, query, body):
        match (self.command, *rest):
            case ("DELETE",):
                FILES.pop(workspace, None)
                return None
            case ("GET", "logs") if "follow" not in query:
                return b""
            case ("GET", "data"):
                return archive(workspace)
            case ("GET", "digest"):
                return amount(data(workspace))
            case ("PUT", "data"):
                came = unpacked(body)
                found = amount(sorted(came.items()))
                if query.get("digest", found["digest"]) != found["digest"]:
                    raise Refused("broken", "the archive has another digest")
                kept = {key: it for key, it in FILES.get(workspace, {}).items() if not travels(*key)}
                FILES[workspace] = kept | came
                return found
            case (_, "file" | "files"):
                return self.files(workspace, rest[0], query, body)
        raise Refused("unsupported", "there is no such route here")

    def files(self, workspace, what, query, body):
        root, path = query["root"], query.get("path", "").strip("/")
        if root not in ROOTS or ".." in path.split("/"):
            raise Refused("broken", "expected a root, and a relative path without `..`")
        files = FILES.get(workspace, {})
        below = {key[1]: it for key, it in files.items()
                 if key[0] == root and (key[1] + "/").startswith(path + "/" if path else "")}
        match (self.command, what):
            case ("PUT", "file"):
                FILES.setdefault(workspace, {})[root, path] = body
                return None
            case ("DELETE", "file"):
                for name in below:
                    del files[root, name]
                return None
            case ("GET", "file") if path in below:
                return below[path]
            case ("GET", "files") if below or not path:
                return {"files": listed(below, path, int(query.get("depth", 1)))}
            case ("GET", _):
                raise Refused("missing", "there is nothing of this name")
        raise Refused("unsupported", "there is no such route here")


def listed(below, path, depth):
    found = {}
    for name, content in below.items():
        parts = name[len(path):].strip("/").split("/")
        for length in range(1, min(len(parts), depth) + 1):
            shown, leaf = "/".join(parts[:length]), length == len(parts)
            found[shown] = {"path": shown, "size": len(content) if leaf else 0, "dir": not leaf}
    return list(found.values())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
