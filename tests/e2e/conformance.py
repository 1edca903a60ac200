"""Records every answer of a session and checks them against nginx/html/openapi.yaml at its end."""

import json
import posixpath
import re
from urllib.parse import unquote

import yaml
from jsonschema import Draft202012Validator, RefResolver

from stack import ROOT

FILE = ROOT / "nginx" / "html" / "openapi.yaml"

# Headers of HTTP itself, of nginx's connections and of files, which no client of the API uses.
TRANSPORT = {"date", "server", "connection", "keep-alive", "content-length", "content-type", "transfer-encoding",
             "content-encoding", "accept-ranges"}
# Where the description says that the metrics are.
METRICS = "http://127.0.0.1:9180"
# Headers that differ between answers that are otherwise the same.
VOLATILE = {"date", "x-request-id", "content-length", "retry-after", "connection"}

# Distinct answers, each with the headers of the first; None while nothing is recorded.
answers = None


def record(method, target, status, headers, body, base=""):
    """Record an answer; target is None where the request was malformed or is unknown."""
    if answers is None:
        return
    path = path_of(target) if target else None
    same = tuple(sorted((name.lower(), value) for name, value in headers if name.lower() not in VOLATILE))
    answers.setdefault((method, path and base + path, status, same, bytes(body)), list(headers))


def record_response(response):
    """The same as httpx's hook."""
    if answers is not None:
        response.read()
        request = response.request
        record(request.method, request.url.raw_path.decode("latin-1"), response.status_code,
               [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw], response.content,
               METRICS if request.url.scheme == "http" else "")


def record_raw(data, answer, method):
    """The same for bytes that were sent and what was read."""
    line = re.match(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n", data or b"")
    record(line[1].decode() if line else method, line[2].decode("latin-1") if line else None, answer.status_code,
           answer.headers.items(), answer.content)


def occurred():
    """Each (method, path, status, code of the error or None) that was recorded."""
    return {(method, path, status, json.loads(body)["error"] if body.startswith(b'{"error"') else None)
            for method, path, status, _, body in answers or () if path is not None}


def path_of(target):
    """The path by which nginx finds its location; None if the target has none."""
    path = re.sub(r"^https?://[^/?]*/?", "/", target, flags=re.IGNORECASE).split("?")[0].split("#")[0]
    path = re.sub("/+", "/", unquote(path, errors="replace"))
    if not path.startswith("/"):
        return None
    return posixpath.normpath(path) + ("/" if path.endswith(("/", "/.", "/..")) and path != "/" else "")


class Description:
    def __init__(self, document):
        self.document = document
        self.resolver = RefResolver("", document)

    @classmethod
    def read(cls):
        return cls(yaml.safe_load(FILE.read_text()))

    def resolve(self, thing):
        return self.resolver.resolve(thing["$ref"])[1] if set(thing) == {"$ref"} else thing

    def errors(self, schema, value, where):
        validator = Draft202012Validator(schema, resolver=self.resolver)
        return [f"{where}: {error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]

    def operations(self):
        """Each (path, method, responses by status)."""
        for path, item in self.document["paths"].items():
            for method in ("get", "head", "post", "options"):
                if method in item:
                    yield path, method, {int(status): self.resolve(each) for status, each in item[method]["responses"].items()}

    def find(self, method, path):
        """The operation of a request; a method that is not described is answered like the path's main one."""
        # The base path may be repeated.
        path = re.sub("^(?:/functions/v1)+(?=/functions/v1/)", "", path)
        for template, item in sorted(self.document["paths"].items(), key=lambda entry: entry[0].count("{") + ("file" in entry[0])):
            names = {each["name"]: each["schema"].get("enum") for each in item.get("parameters", [])}
            pattern = re.sub(r"\{(\w+)\}", lambda found: f"(?:{'|'.join(names[found[1]] or ['.*'])})", template)
            bases = [server["url"].rstrip("/") for server in item.get("servers", [{"url": "/"}])]
            if any(re.fullmatch(re.escape(base) + pattern, path, re.DOTALL) for base in bases):
                name = method.lower() if method.lower() in item else "post" if "post" in item else "get"
                return template, name
        raise AssertionError(f"no path for {path}")

    def responses(self, template, method):
        item = self.document["paths"][template][method]
        return {int(status): self.resolve(each) for status, each in item["responses"].items()}

    def problems(self, response, headers, body, is_head=False):
        """How an answer differs from the description of its response."""
        found, values = [], {}
        for name, value in headers:
            values.setdefault(name.lower(), []).append(value)
        described = {name.lower(): self.resolve(each) for name, each in response.get("headers", {}).items()}
        for name, header in described.items():
            if header.get("required") and name not in values:
                found.append(f"header {name} is missing")
            for value in values.get(name, []):
                number = self.resolve(header["schema"]).get("type") == "integer" and re.fullmatch("[0-9]+", value)
                found += self.errors(header["schema"], int(value) if number else value, f"header {name}")
        for name, given in values.items():
            if len(given) > 1:
                found.append(f"header {name} stands {len(given)} times")
            if name not in described and name not in TRANSPORT:
                found.append(f"header {name} is not described")
        if not is_head:
            found += self.body_problems(response.get("content", {}), values.get("content-type", [""])[0], body)
        return found

    def body_problems(self, content, kind, body):
        media = kind.split(";")[0]
        if not content:
            return ["a body that is not described"] if body else []
        if media not in content:
            return [f"content type {media} is not described"]
        if media != "application/json":
            return []
        try:
            return self.errors(content[media]["schema"], json.loads(body), "body")
        except ValueError as error:
            return [f"body: {error}"]

    def check(self, method, path, status, headers, body):
        """What is wrong with an answer."""
        if path is None:
            # A malformed request may be answered like any operation.
            choices = [found[status] for _, _, found in self.operations() if status in found]
            kinds = [self.problems(each, headers, body, method == "HEAD") for each in choices]
            return min(kinds, key=len, default=[f"status {status} is described nowhere"])
        template, name = self.find(method, path)
        responses = self.responses(template, name)
        if status not in responses:
            return [f"status {status} is not described"]
        return self.problems(responses[status], headers, body, method == "HEAD")

    def codes(self, response):
        """The error codes a response may have."""
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if "$ref" in schema:
            schema = {**self.resolver.resolve(schema["$ref"])[1], **schema}
        error = schema.get("properties", {}).get("error", {})
        return self.resolve(error).get("enum", []) if error else []
