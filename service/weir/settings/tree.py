"""The tree: what can be configured, each value with its unit, its default and its reason."""

import re
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from weir.auth.records import GLOB, check_team_name, unit_of
from weir.backend.engines import engine_at
from weir.backend.python import resolve
from weir.backend.transformers_model import Device, Dtype, check
from weir.core.types import BURST_SECONDS, MAX_PER_MINUTE_TIMES_BURST, Limits
from weir.store.connect import Place

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
API_VERSION = r"^[A-Za-z0-9.-]{1,40}$"
HEALTH_PATH = r"^/[!-~]*$"
DIGEST = r"^[0-9a-f]{64}$"
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
EngineName = Literal[
    "generic", "openai", "azure", "vllm", "ollama", "tgi", "tei", "lmstudio", "llamacpp", "transformers", "openrouter"
]  # backend/engines.py
OperationName = Literal[
    "chat",
    "text_completion",
    "responses",
    "messages",
    "count_tokens",
    "tokenize",
    "embeddings",
    "rerank",
    "rerank_texts",
    "moderations",
    "image",
    "speech",
    "transcription",
]  # core/operations.py
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Misfit(ValueError):
    """Settings that are good one by one, and not together; `path` leads to the one to look at."""

    def __init__(self, sentence: str, *path: str | int) -> None:
        super().__init__(sentence)
        self.path = path


class Section(BaseModel):
    """A part of the tree: frozen, and with no room for names that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _a_boolean_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation is not bool:
            # YAML reads yes, no, on and off as booleans, and pydantic would take them for 1 and 0.
            raise ValueError(f"must not be {str(value).lower()} (YAML reads yes, no, on and off so)")
        return value


def _is_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError("is no address and no network like 10.0.0.0/8, with zeros behind its prefix") from None
    return text


def _is_origin(text: str) -> str:
    if text == "*" or re.fullmatch(r"https?://[^/\s?#@*]+", text):
        return text.lower()
    raise ValueError("is no origin like https://chat.example.com, without a path; * stands for all of them")


def _http_address(url: str, whose: str, secret_goes_to: str) -> str:
    # What urllib says of a bad address may quote it, and half of a password is easily taken for a port.
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"{whose} cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{whose} begins with http:// or https:// and names a host")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{whose} has a port that is no number up to 65535") from None
    if parts.username or parts.password:
        raise ValueError(f"{whose} holds no password; use {secret_goes_to}")
    if parts.query or parts.fragment:  # it stands in logs and metrics
        raise ValueError(f"{whose} ends with its path; if there is a secret behind the ?, use {secret_goes_to}")
    return url.rstrip("/")


def _callable(target: str) -> str:
    """Imports it: whoever writes a target wants to hear now that there is none."""
    resolve(target)
    return target


class Server(Section):
    """Where Weir listens, and what it accepts."""

    host: str = "::"  # both families; IPv4 alone where the machine has no IPv6
    port: Port = 8080
    ops_port: Port = 9090  # health, metrics, drain: never through the ingress
    workers: Annotated[int, Field(ge=1, le=64)] = 1  # one process a pod is the default: more pods, not more processes
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    body_timeout_seconds: Seconds = 30.0  # a head, and then a body, that does not arrive in this time is refused (408)
    sse_keepalive_seconds: Seconds = 15.0  # a comment after this much silence, so that no load balancer cuts a stream
    write_timeout_seconds: Seconds = 30.0  # a client that reads nothing for this long is cut
    keepalive_seconds: Annotated[int, Field(ge=1)] = 75  # longer than a load balancer's (60), or it meets a closing one
    # Requests on their way to models in one process; beyond it they wait, fairly between teams, then get 503.
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 1024
    wait_seconds: Seconds = 10.0
    trusted_proxies: tuple[Annotated[str, AfterValidator(_is_network)], ...] = ()  # whose X-Forwarded-For counts
    docs: bool = True  # /docs and /openapi.json
    cors_origins: tuple[
        Annotated[str, AfterValidator(_is_origin)], ...
    ] = ()  # pages in browsers that may call; * is all


class Redis(Section):
    """The one store: keys, limits, leases."""

    url: SecretStr | None = None  # redis://user:password@host:6379/0, rediss:// for TLS, unix:///path
    on_outage: Literal["degrade", "closed", "open"] = "degrade"
    command_seconds: Annotated[float, Field(gt=0, le=10)] = 0.1

    @field_validator("url")
    @classmethod
    def _can_be_read(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            Place.of(url.get_secret_value())  # its sentences hold nothing of the user and the password
        return url


class TimeoutSettings(Section):
    """Seconds."""

    connect: Seconds = 2.0
    first_byte: Seconds = 300.0  # a long prompt is read for minutes before the first token
    idle: Seconds = 120.0
    total: Seconds = 3600.0


class HealthSettings(Section):
    """A look at an endpoint now and then; without one, requests alone find out how it is."""

    path: Annotated[str, Field(pattern=HEALTH_PATH)] = "/health"  # from the server's root; a 2xx is health
    interval_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 2.0


class EndpointSettings(Section):
    """One upstream address, with its API's base path, as in http://vllm-0.vllm:8000/v1."""

    url: str
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0  # asked is the one with the least under way for its weight
    api_key_env: str | None = None  # the name of the environment variable, so that no secret is in this file
    # Of Azure's API by deployments, as 2024-10-21; absent for its v1 API, whose url ends with /openai/v1.
    api_version: Annotated[str, Field(pattern=API_VERSION)] | None = None
    max_in_flight: Annotated[int, Field(ge=1)] | None = None  # of one Weir process; beyond it requests wait
    health: HealthSettings | None = None

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return _http_address(url, "an endpoint's url", "api_key_env")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not VARIABLE.fullmatch(name):
            raise ValueError("this is no name of an environment variable; put the key into one, and its name here")
        return name


class Price(Section):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class EchoSettings(Section):
    delay_ms: Annotated[float, Field(ge=0, le=60_000)] = 0.0  # before each word of a stream


class PythonSettings(Section):
    """Around a model that is a Python function: more of "module:callable"."""

    chunk_mapper: str | None = None  # gives the text of a piece that is neither text nor a chunk
    pre_hook: str | None = None  # sees the request first, and may return another one
    post_hook: str | None = None  # sees what the function returned, and may return something else
    threads: Annotated[int, Field(ge=1, le=1024)] = 32  # in which functions run that are not async

    @field_validator("chunk_mapper", "pre_hook", "post_hook")
    @classmethod
    def _is_there(cls, target: str | None) -> str | None:
        return None if target is None else _callable(target)


class TransformersSettings(Section):
    """A model in this process, by transformers and torch: the extra `local`."""

    device: Device = "auto"  # cuda where there is a card, then mps, else the CPU
    dtype: Dtype = "auto"  # as the weights are; float32 on a CPU
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None  # of one operation on a CPU; absent: as torch chooses


class Model(Section):
    """A name that clients ask for, and what answers to it."""

    name: Annotated[str, Field(pattern=MODEL_NAME)]
    aliases: tuple[Annotated[str, Field(pattern=MODEL_NAME)], ...] = ()
    backend: Literal["openai", "anthropic", "echo", "python", "transformers"] = "openai"
    # What kind of server its endpoints are; absent: what their host's name tells, else generic.
    engine: EngineName | None = None
    # The operations that the server knows itself, where that is not what its kind does: "chat", "messages" and so on.
    serves: tuple[OperationName, ...] | None = None
    upstream_model: str | None = None  # the name that the upstream knows; ours if absent
    endpoints: tuple[EndpointSettings, ...] = ()
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: Annotated[int, Field(ge=0, le=10)] = 2  # before the first byte only
    fallbacks: tuple[str, ...] = ()
    price: Price = Price()
    # What is reserved, and injected upstream, for a request that names no maximum. Absent: 4096 where a token limit
    # needs a bound, and nothing is injected for callers without one.
    default_max_tokens: Annotated[int, Field(ge=1)] | None = None
    # How the upstream calls the cap of a chat answer. Absent: max_completion_tokens for OpenAI, else max_tokens.
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    # False for a model that cannot think, whose server refuses who asks for it (Ollama); then nobody's request does.
    thinks: bool = True
    owned_by: str = "weir"
    # Begin the answer to a stream while the model still reads a prompt of minutes; failures then come as an event.
    early_headers: bool = False
    echo: EchoSettings = EchoSettings()
    # Of backend "python": "module:callable", which is asked with (model, messages, body).
    target: Annotated[str, AfterValidator(_callable)] | None = None
    python: PythonSettings = PythonSettings()
    # Of backend "transformers": `upstream_model` is a folder, or a name at the Hugging Face hub.
    transformers: TransformersSettings = TransformersSettings()

    @model_validator(mode="after")
    def _has_endpoints(self) -> Self:
        if self.backend in ("openai", "anthropic") and not self.endpoints:
            raise ValueError(f"a model with backend '{self.backend}' needs at least one endpoint with a url")
        kinds = {self.kind_of(endpoint) for endpoint in self.endpoints}
        if len(kinds) > 1:
            raise ValueError(f"its endpoints are of several kinds ({', '.join(sorted(kinds))}); make it two models")
        if any(endpoint.api_version for endpoint in self.endpoints) and kinds != {"azure"}:
            raise ValueError("api_version is for endpoints of Azure; say 'engine: azure' if they are")
        if self.backend in ("echo", "python", "transformers") and self.endpoints:
            raise ValueError(f"a model with backend '{self.backend}' has no endpoints")
        if (self.backend == "python") is not (self.target is not None):
            raise ValueError("backend 'python' and a target, 'module:callable', go together")
        if self.backend == "transformers":
            check(self.upstream_model or self.name)
        addresses = [endpoint.url for endpoint in self.endpoints]
        if twice := {url for url in addresses if addresses.count(url) > 1}:
            raise ValueError(f"the endpoint {twice.pop()} is given twice; give it once, with a greater weight")
        return self

    def kind_of(self, endpoint: EndpointSettings) -> str:
        """Which row of the table of engines it is."""
        return "anthropic" if self.backend == "anthropic" else self.engine or engine_at(endpoint.url)


class LimitsSettings(Section):
    """Limits as teams and keys write them."""

    burst_seconds: Annotated[int, Field(ge=1, le=86_400)] = BURST_SECONDS
    rpm: Annotated[int, Field(ge=1)] | None = None
    tpm: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    models: tuple[Annotated[str, Field(pattern=GLOB.pattern)], ...] = ()
    shadow: tuple[Literal["rpm", "tpm", "concurrency"], ...] = ()

    @field_validator("rpm", "tpm")
    @classmethod
    def _is_exact(cls, per_minute: int | None, info: ValidationInfo) -> int | None:
        burst = info.data.get("burst_seconds", BURST_SECONDS)
        if per_minute is not None and per_minute * burst > MAX_PER_MINUTE_TIMES_BURST:
            raise ValueError(f"can be at most {MAX_PER_MINUTE_TIMES_BURST // burst} with a burst of {burst} seconds")
        return per_minute

    def limits(self) -> Limits:
        """As the rooms know them."""
        return Limits(
            rpm=self.rpm,
            tpm=self.tpm,
            concurrency=self.concurrency,
            burst_seconds=self.burst_seconds,
            models=self.models,
            shadow=frozenset(map(unit_of, self.shadow)),
        )


class KeySettings(LimitsSettings):
    """A key by its digest; the key itself never stands in a file."""

    digest: Annotated[str, Field(pattern=DIGEST)]
    name: str = ""


class TeamSettings(LimitsSettings):
    """A team, and keys of it."""

    name: Annotated[str, AfterValidator(check_team_name)]
    keys: tuple[KeySettings, ...] = ()


class Admission(Section):
    """How reservations behave."""

    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0  # a killed replica's places are free after this long


class Keys(Section):
    """How keys are kept."""

    pepper: SecretStr | None = None  # stored are HMAC-SHA256(pepper, key); without it SHA-256. Not to be changed later


class Drain(Section):
    announce_seconds: Annotated[float, Field(ge=0, le=600)] = 5.0
    deadline_seconds: Annotated[float, Field(ge=0, le=86_400)] = 300.0


class Telemetry(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics: bool = True  # of single requests; those of the process are always there
    otlp_endpoint: str | None = None  # of a collector, as http://otel-collector:4318; absent: no traces
    otlp_protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"  # grpc needs the extra of that name
    otlp_headers: dict[str, SecretStr] = {}  # what the collector asks for, a bearer token for instance
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0.01  # of traces that begin here; a caller's own choice stands
    trust_traceparent: bool = True  # callers may join our spans to their trace, and decide whether it is kept
    capture_content: bool = False  # prompts and answers in the spans of sampled requests; in logs and metrics never
    semconv: Literal["v1.41", "latest"] = "v1.41"  # which names of OpenTelemetry's GenAI conventions spans bear

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        return None if url is None else _http_address(url, "the collector's url", "otlp_headers")

    @field_validator("otlp_headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"'{name}' is no header's name")
            if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
                # Whoever refuses it later may quote it.
                raise ValueError(f"the value of '{name}' has a line end, a space around it or another odd character")
        return headers

    @field_validator("otlp_protocol")
    @classmethod
    def _is_installed(cls, protocol: str) -> str:
        if protocol == "grpc" and not find_spec("opentelemetry.exporter.otlp.proto.grpc"):
            raise ValueError("grpc needs more than is installed; run: pip install 'weir-gateway[grpc]'")
        return protocol


class Settings(BaseSettings):
    """The root."""

    model_config = SettingsConfigDict(
        env_prefix="WEIR_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    server: Server = Server()
    redis: Redis = Redis()
    models: tuple[Model, ...] = ()
    teams: tuple[TeamSettings, ...] = ()
    limits: Admission = Admission()
    keys: Keys = Keys()
    drain: Drain = Drain()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for m, model in enumerate(self.models):
            aliases = ((name, ("aliases", a)) for a, name in enumerate(model.aliases))
            for name, inside in ((model.name, ("name",)), *aliases):
                if name in seen:
                    raise Misfit(f"the model name '{name}' is given twice", "models", m, *inside)
                seen.add(name)
        teams: set[str] = set()
        for t, team in enumerate(self.teams):
            if team.name in teams:
                raise Misfit(f"the team '{team.name}' is given twice", "teams", t, "name")
            teams.add(team.name)
        if self.server.port == self.server.ops_port:
            raise Misfit("server.port and server.ops_port must differ", "server", "ops_port")
        return self
