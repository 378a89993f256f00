"""As much of a Kubernetes API server as Helm's own client talks to: discovery, objects, server-side apply.

Nothing runs in it. It keeps what it is given, counts what changes, and refuses what `check` finds wrong, as a real one
would. One field manager is enough: what is applied is the whole object, so that a field that is left out goes.
"""

import base64
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]

KINDS = {
    "v1": ("ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment", "StatefulSet", "ReplicaSet"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "external-secrets.io/v1": ("ExternalSecret",),
    "gateway.networking.k8s.io/v1": ("HTTPRoute",),
    "keda.sh/v1alpha1": ("ScaledObject",),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule", "ServiceMonitor"),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
}
UNUSUAL = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
PATH = re.compile(r"/(?:api|apis/([^/]+))/([^/]+)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
PROTOBUF = b"k8s\0"


def plural(kind: str) -> str:
    return UNUSUAL.get(kind, f"{kind.lower()}s")


@dataclass(slots=True)
class Kubernetes:
    """As a block: listens on a port of its own. `check` gives what is wrong with an object."""

    check: Callable[[Object], list[str]] = lambda _: []
    version: str = "1.34"
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)  # by kind, namespace, name
    writes: list[str] = field(default_factory=list)  # of everything but releases: "apply Deployment weir"
    asked: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # what was asked for and is not known here
    _server: ThreadingHTTPServer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def __enter__(self) -> Self:
        api = self

        class Handler(_Handler):
            kubernetes = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="kubernetes", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_port}"

    def kinds(self) -> list[str]:
        """Of what is there, without Helm's own releases."""
        return sorted(kind for (kind, _, _), one in self.objects.items() if not _is_release(one))

    def get(self, kind: str, name: str) -> Object:
        (found,) = (one for (k, _, n), one in self.objects.items() if (k, n) == (kind, name))
        return found

    def rollouts(self, name: str) -> int:
        """How often the pods of a Deployment were made anew."""
        return int(self.get("Deployment", name)["metadata"]["annotations"]["fake/rollouts"])

    # -- what is asked

    def answer(self, method: str, target: str, kind_of_body: str, body: bytes) -> tuple[int, Object]:
        with self._lock:
            parts = urlsplit(target)
            self.asked.append(f"{method} {target}")
            if found := PATH.fullmatch(parts.path):
                group, version, namespace, kinds, name = found.groups()
                api_version = f"{group}/{version}" if group else version
                kind = next((kind for kind in KINDS.get(api_version, ()) if plural(kind) == kinds), None)
                if kind:
                    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                    return self._object(method, (api_version, kind, namespace, name), query, kind_of_body, body)
            if (told := _discovery(parts.path, self.version)) is not None and method == "GET":
                return 200, told
            self.unknown.append(f"{method} {target}")
            return _status(404, "NotFound", f"there is no {target}")

    def _object(
        self,
        method: str,
        where: tuple[str, str, str, str | None],
        query: dict[str, str],
        kind_of_body: str,
        body: bytes,
    ) -> tuple[int, Object]:
        api_version, kind, namespace, name = where
        if method == "GET" and name is None:
            chosen = [one for (k, n, _), one in self.objects.items() if (k, n) == (kind, namespace)]
            return 200, {
                "apiVersion": api_version,
                "kind": f"{kind}List",
                "metadata": {"resourceVersion": str(self._number)},
                "items": [one for one in chosen if _matches(one, query.get("labelSelector", ""))],
            }
        if method == "POST":
            made = _read(kind_of_body, body, api_version, kind)
            name = made["metadata"]["name"]
            if (kind, namespace, name) in self.objects:
                return _status(409, "AlreadyExists", f"{kind} {name} already exists")
            return self._keep("create", made, namespace, query)
        key = (kind, namespace, str(name))
        before = self.objects.get(key)
        if method == "PATCH" and kind_of_body == "application/apply-patch+yaml":
            return self._keep("apply", _read(kind_of_body, body, api_version, kind), namespace, query)
        if before is None:
            return _status(404, "NotFound", f'{plural(kind)} "{name}" not found')
        if method == "GET":
            return 200, before
        if method == "PUT":
            return self._keep("update", _read(kind_of_body, body, api_version, kind), namespace, query)
        if method == "DELETE":
            del self.objects[key]
            self.writes += [] if _is_release(before) else [f"delete {kind} {name}"]
            return _status(200, "", "")
        self.unknown.append(f"{method} {kind} as {kind_of_body}")
        return _status(415, "UnsupportedMediaType", kind_of_body)

    def _keep(self, how: str, made: Object, namespace: str, query: dict[str, str]) -> tuple[int, Object]:
        kind, name = made["kind"], made["metadata"]["name"]
        made["metadata"] = {key: value for key, value in made["metadata"].items() if value is not None}
        made["metadata"].setdefault("namespace", namespace)
        if wrong := [] if _is_release(made) else self.check(made):
            return _status(422, "Invalid", f"{kind} {name} is invalid: {'; '.join(wrong)}")
        before = self.objects.get((kind, namespace, name))
        if query.get("dryRun") == "All":
            return 200, made
        if before and _without_marks(before) == _without_marks(made):
            return 200, before
        self._number += 1
        mark = {"uid": (before or {}).get("metadata", {}).get("uid", f"uid-{self._number}")}
        mark |= {"resourceVersion": str(self._number), "creationTimestamp": "2026-01-01T00:00:00Z"}
        made["metadata"] |= mark
        if kind == "Deployment":
            rolled = 1
            if before:
                rolled = int(before["metadata"]["annotations"]["fake/rollouts"])
                rolled += before["spec"]["template"] != made["spec"]["template"]
            made["metadata"].setdefault("annotations", {})["fake/rollouts"] = str(rolled)
        self.objects[kind, namespace, name] = made
        if not _is_release(made):
            self.writes.append(f"{how} {kind} {name}")
        return 200 if before else 201, made


class _Handler(BaseHTTPRequestHandler):
    kubernetes: Kubernetes
    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind_of_body = (self.headers.get("content-type") or "").partition(";")[0]
        status, answer = self.kubernetes.answer(self.command, self.path, kind_of_body, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


def _is_release(one: Object) -> bool:
    return one["metadata"].get("labels", {}).get("owner") == "helm"


def _without_marks(one: Object) -> Object:
    metadata = {k: v for k, v in one["metadata"].items() if k not in {"uid", "resourceVersion", "creationTimestamp"}}
    annotations = {k: v for k, v in metadata.pop("annotations", {}).items() if k != "fake/rollouts"}
    return {**one, "metadata": {**metadata, "annotations": annotations}}


def _matches(one: Object, selector: str) -> bool:
    labels = one["metadata"].get("labels", {})
    for part in filter(None, selector.split(",")):
        name, _, value = part.partition("=")
        if "!" in name or " in " in part or labels.get(name) != value.lstrip("="):
            return False
    return True


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    word = "Success" if code < 400 else "Failure"
    told = {"apiVersion": "v1", "kind": "Status", "status": word, "reason": reason, "message": message, "code": code}
    return code, told


def _discovery(path: str, version: str) -> Object | None:
    parts = path.strip("/").split("/")
    match parts:
        case ["version"]:
            major, minor = version.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{version}.0", "platform": "linux/amd64"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = []
            for one in KINDS:
                group, _, number = one.partition("/")
                if number:
                    named = {"groupVersion": one, "version": number}
                    groups.append({"name": group, "versions": [named], "preferredVersion": named})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api", "v1"] | ["apis", _, _]:
            api_version = "v1" if parts[0] == "api" else f"{parts[1]}/{parts[2]}"
            if api_version not in KINDS:
                return None
            resources = [
                {"name": plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
                for kind in KINDS[api_version]
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}
        case ["openapi", "v3"]:
            places = {one: f"/openapi/v3/{_place(one)}?hash={one.replace('/', '-')}" for one in KINDS}
            return {"paths": {_place(one): {"serverRelativeURL": url} for one, url in places.items()}}
        case ["openapi", "v3", *place]:
            # All that a client wants to hear: that this server looks at the fields itself.
            api_version = next(one for one in KINDS if _place(one) == "/".join(place))
            group, _, number = api_version.rpartition("/")
            paths = {}
            for kind in KINDS[api_version]:
                patch = {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "x-kubernetes-action": "patch",
                    "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
                    "responses": {},
                }
                paths[f"/{_place(api_version)}/namespaces/{{namespace}}/{plural(kind)}/{{name}}"] = {"patch": patch}
            return {"openapi": "3.0.0", "info": {"title": "fake", "version": version}, "paths": paths}
    return None


def _place(api_version: str) -> str:
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


# -- bodies


def _read(kind_of_body: str, body: bytes, api_version: str, kind: str) -> Object:
    if body.startswith(PROTOBUF):
        return _from_protobuf(body, api_version, kind)
    made: Object = yaml.load(body, Loader=yaml.CSafeLoader) if "yaml" in kind_of_body else json.loads(body)
    return made | {"apiVersion": api_version, "kind": kind}


def _from_protobuf(body: bytes, api_version: str, kind: str) -> Object:
    """A Secret or ConfigMap, as Helm keeps its releases in: an envelope, and in its second field the object."""
    raw = next(value for number, value in _fields(body[len(PROTOBUF) :]) if number == 2)
    made: Object = {"apiVersion": api_version, "kind": kind, "metadata": {}, "data": {}}
    for number, value in _fields(raw):
        if number == 1:
            for inner, text in _fields(value):
                if inner in {1, 3}:
                    made["metadata"]["name" if inner == 1 else "namespace"] = text.decode()
                elif inner in {11, 12}:
                    name, entry = (part.decode() for _, part in _fields(text))
                    made["metadata"].setdefault("labels" if inner == 11 else "annotations", {})[name] = entry
        elif number == 2:
            entries = dict(_fields(value))
            made["data"][entries[1].decode()] = base64.b64encode(entries[2]).decode()
        elif number == 3:
            made["type"] = value.decode()
    return made


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Those that have a length; numbers are passed over."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        match tag & 7:
            case 0:
                varint()
            case 2:
                length = varint()
                found.append((tag >> 3, data[at : at + length]))
                at += length
            case 1:
                at += 8
            case 5:
                at += 4
            case other:
                raise ValueError(f"no wire type {other}")
    return found
