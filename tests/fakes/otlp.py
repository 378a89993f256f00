"""A collector that speaks OTLP, by HTTP or gRPC, on a thread of its own; it can refuse, hang and come back.

with Collector() as collector:
    send_to(collector.endpoint)
    collector.hang()
    collector.heal()
    collector.refuse()
    collector.heal()
    spans = collector.spans
"""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

KINDS = {1: "internal", 2: "server", 3: "client"}
STATUSES = {0: "unset", 1: "ok", 2: "error"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as it came; times in seconds since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    began: float
    ended: float
    status: str
    attributes: dict[str, Any]
    events: dict[str, float]
    resource: dict[str, Any]
    scope: str
    schema_url: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class _Server(Protocol):
    port: int

    def stop(self) -> None: ...


class Collector:
    """`protocol` as in Weir's settings."""

    def __init__(self, protocol: str = "http/protobuf") -> None:
        self.spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.moved_to: str | None = None  # by HTTP: it says so, and takes nothing
        self._serve: Callable[[Collector, int], _Server] = _Grpc if protocol == "grpc" else _Http
        self._flows = threading.Event()
        self._flows.set()
        self._server: _Server | None = self._serve(self, 0)
        self.port = self._server.port
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        self.refuse()

    def refuse(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def hang(self) -> None:
        """Requests are taken, and never answered."""
        self._flows.clear()

    def heal(self) -> None:
        if self._server is None:
            self._server = self._serve(self, self.port)
        self._flows.set()

    def take(self, body: bytes, headers: dict[str, str], path: str) -> bytes:
        """One export; gives the answer's body once nothing hangs."""
        hung = not self._flows.is_set()
        self._flows.wait(60)
        if not hung:  # whoever sent the others has given them up
            request = ExportTraceServiceRequest.FromString(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.spans += _seen(request)
        return ExportTraceServiceResponse().SerializeToString()

    # -- what came

    def named(self, name: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.name == name]

    def tree(self, request_id: str) -> list[Seen]:
        """A request's span and those below it, in the order of their beginnings; [] while it is not here."""
        spans = list(self.spans)
        roots = [span for span in spans if span.attributes.get("weir.request_id") == request_id]
        if not roots:
            return []
        (root,) = roots
        inner = [span for span in spans if span.parent_id == root.span_id and span.trace_id == root.trace_id]
        return [root, *sorted(inner, key=lambda span: span.began)]


def _seen(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for group in request.resource_spans:
        resource = _mapped(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Seen(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    state=span.trace_state,
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                    status=STATUSES[span.status.code],
                    attributes=_mapped(span.attributes),
                    events={event.name: event.time_unix_nano / 1e9 for event in span.events},
                    resource=resource,
                    scope=scope.scope.name,
                    schema_url=scope.schema_url,
                )


def _mapped(pairs: Any) -> dict[str, Any]:
    attributes: list[KeyValue] = list(pairs)
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


class _Http:
    """OTLP/HTTP with protobuf."""

    def __init__(self, collector: Collector, port: int) -> None:
        open_ones = self._open = set[socket.socket]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                open_ones.add(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if collector.moved_to is not None:
                    self.send_response(308)
                    self.send_header("location", collector.moved_to)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                answer = collector.take(body, headers, self.path)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Whoever sent this has left."""

        self._server = Quiet(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Also the connections that are open: a collector that dies leaves none."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._thread.join(5)


class _Grpc:
    """OTLP/gRPC."""

    def __init__(self, collector: Collector, port: int) -> None:
        def export(request: bytes, context: grpc.ServicerContext) -> bytes:
            headers = {str(name): str(value) for name, value in context.invocation_metadata()}
            return collector.take(request, headers, "Export")

        method = grpc.unary_unary_rpc_method_handler(export)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
        self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait(5)
