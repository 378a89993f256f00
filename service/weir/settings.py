"""Everything that can be configured: one frozen tree, read once from weir.yaml and WEIR_*, refused where it is wrong.

Every value of the file is also an environment variable, WEIR_SECTION__NAME, which wins over the file. Lists and models
are JSON there. Unknown names are refused with the nearest known one, because a typo in a limit is a limit not set.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from weir.auth.records import GLOB, check_team_name, unit_of
from weir.backend.engines import engine_at
from weir.backend.python import resolve
from weir.core.types import BURST_SECONDS, MAX_PER_MINUTE_TIMES_BURST, Limits

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
EngineName = Literal[
    "generic", "openai", "azure", "vllm", "ollama", "tgi", "tei", "lmstudio", "llamacpp", "openrouter"
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
]  # core/operations.py
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=1, le=65_535)]


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
    ops_port: Port = 9090  # health, metrics, administration: never through the ingress
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


class TimeoutSettings(Section):
    """Seconds."""

    connect: Seconds = 2.0
    first_byte: Seconds = 300.0  # a long prompt is read for minutes before the first token
    idle: Seconds = 120.0
    total: Seconds = 3600.0


class HealthSettings(Section):
    """A look at an endpoint now and then; without one, requests alone find out how it is."""

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] = "/health"  # from the server's root; a 2xx is health
    interval_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 2.0


class EndpointSettings(Section):
    """One upstream address, with its API's base path, as in http://vllm-0.vllm:8000/v1."""

    url: str
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    api_key_env: str | None = None  # the name of the environment variable, so that no secret is in this file
    # Of Azure's API by deployments, as 2024-10-21; absent for its v1 API, whose url ends with /openai/v1.
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,40}$")] | None = None
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


class Model(Section):
    """A name that clients ask for, and what answers to it."""

    name: Annotated[str, Field(pattern=MODEL_NAME)]
    aliases: tuple[Annotated[str, Field(pattern=MODEL_NAME)], ...] = ()
    backend: Literal["openai", "anthropic", "echo", "python"] = "openai"
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

    @model_validator(mode="after")
    def _has_endpoints(self) -> Self:
        if self.backend in ("openai", "anthropic") and not self.endpoints:
            raise ValueError(f"a model with backend '{self.backend}' needs at least one endpoint with a url")
        kinds = {self.kind_of(endpoint) for endpoint in self.endpoints}
        if len(kinds) > 1:
            raise ValueError(f"its endpoints are of several kinds ({', '.join(sorted(kinds))}); make it two models")
        if any(endpoint.api_version for endpoint in self.endpoints) and kinds != {"azure"}:
            raise ValueError("api_version is for endpoints of Azure; say 'engine: azure' if they are")
        if self.backend in ("echo", "python") and self.endpoints:
            raise ValueError(f"a model with backend '{self.backend}' has no endpoints")
        if (self.backend == "python") is not (self.target is not None):
            raise ValueError("backend 'python' and a target, 'module:callable', go together")
        addresses = [endpoint.url for endpoint in self.endpoints]
        if twice := {url for url in addresses if addresses.count(url) > 1}:
            raise ValueError(f"the endpoint {twice.pop()} is given twice; its weight says how much it takes")
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

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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
        for model in self.models:
            for name in (model.name, *model.aliases):
                if name in seen:
                    raise ValueError(f"the model name '{name}' is given twice")
                seen.add(name)
        for name, times in Counter(team.name for team in self.teams).items():
            if times > 1:
                raise ValueError(f"the team '{name}' is given twice")
        if self.server.port == self.server.ops_port:
            raise ValueError("server.port and server.ops_port must differ")
        return self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where. `line` counts from 1; 0 where it is not in the file."""

    where: str
    what: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.where}: {self.what}" if self.where else f"{place}{self.what}"


class BadSettings(Exception):
    """Everything that is wrong, at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a file, the environment, and the command line's overrides, which win over both.

    Raises:
        BadSettings: with all that is wrong.

    """
    document, lines = _read(path) if path else ({}, {})
    problems = list(_unknown_in_environment())
    try:
        settings = _settled(document, {})  # a flag does not excuse the value that it replaces
        if overrides:
            settings = _settled(document, overrides)
    except ValidationError as error:
        problems += [_problem(dict(detail), lines) for detail in error.errors()]
    except (ValueError, TypeError) as error:  # an environment variable that is not the JSON it should be
        problems.append(Problem("environment", str(error)))
    else:
        problems += list(_unset_secrets(settings, lines))
    if problems:
        raise BadSettings(sorted(set(problems), key=lambda p: (p.line, p.where)))
    return settings


def _settled(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """The command line wins over the environment, that over the file, that over the defaults; value by value."""

    class Settled(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class' form
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            line, file = (InitSettingsSource(settings_cls, dict(source)) for source in (overrides, document))
            return line, env_settings, file

    settled = Settled()
    values = {name: getattr(settled, name) for name in Settings.model_fields}
    return Settings.model_construct(settled.model_fields_set, **values)


def remarks(settings: Settings) -> list[str]:
    """What is no mistake, and still not what somebody may expect; a sentence each."""
    names = {model.name for model in settings.models}
    found = [
        f"the fallback '{name}' of model '{model.name}' is no other model here, and never asked"
        for model in settings.models
        for name in model.fallbacks
        if name not in names - {model.name}
    ]
    if "*" in settings.server.cors_origins:
        found.append("any page that somebody opens may call with a key that it knows, as server.cors_origins says *")
    if settings.telemetry.capture_content and settings.telemetry.otlp_endpoint:
        found.append("prompts and answers of sampled requests go to the collector, as telemetry.capture_content says")
    return found


# -- where in the file -----------------------------------------------------------------------------------------------

Path_ = tuple[str | int, ...]


def _read(path: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings([Problem("", f"{path} cannot be read: {error}")]) from error
    try:
        document = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = _unquoted(getattr(error, "problem", None) or "this is not YAML")
        raise BadSettings([Problem("", f"not valid YAML: {what}", mark.line + 1 if mark else 0)]) from None
    except ValueError:  # of what looks like a date or a number, and is none
        raise BadSettings([Problem("", "not valid YAML: a date or number that there is not; quote it")]) from None
    except RecursionError:
        raise BadSettings([Problem("", "is nested too deeply to be a configuration")]) from None
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise BadSettings([Problem("", "the file must hold names and values, like 'server:' and 'models:'", 1)])
    lines: dict[Path_, int] = {}
    problems: list[Problem] = []
    try:
        _mark_lines(tree, (), lines, problems)
    except RecursionError:  # an anchor that holds itself
        raise BadSettings([Problem("", "holds itself, by an anchor")]) from None
    if problems:
        raise BadSettings(problems)
    return {str(name): value for name, value in document.items()}, lines


def _unquoted(problem: str) -> str:
    """A YAML parser's sentence without what it quotes: a secret that begins with * or ! is an alias or a tag to it."""
    shown = re.sub(r"(['\"]).{4,}\1", "...", problem)
    return shown if shown == problem else f"{shown}; put quotes around a text that begins with *, & or !"


def _mark_lines(node: yaml.Node | None, path: Path_, lines: dict[Path_, int], problems: list[Problem]) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            inner = (*path, str(name.value))
            lines[inner] = name.start_mark.line + 1
            if name.value in seen:
                problems.append(Problem(_dotted(inner), "is given twice", lines[inner]))
            seen.add(name.value)
            _mark_lines(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*path, number)] = value.start_mark.line + 1
            _mark_lines(value, (*path, number), lines, problems)


def _problem(detail: dict[str, Any], lines: Mapping[Path_, int]) -> Problem:
    path: Path_ = tuple(detail["loc"])
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)
    if detail["type"] == "extra_forbidden":
        known = list(_names_at(Settings, path[:-1]))
        return Problem(_dotted(path), f"there is no such setting{_nearest(str(path[-1]), known)}", line)
    return Problem(_dotted(path), detail["msg"].removeprefix("Value error, "), line)


def _names_at(model: type[BaseModel], path: Path_) -> Iterator[str]:
    """The settings that exist where `path` leads."""
    for step in path:
        if isinstance(step, int):
            continue
        inner = model.model_fields.get(step)
        if inner is None:
            return
        candidates = [inner.annotation, *get_args(inner.annotation)]
        found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if found is None:
            return
        model = found
    yield from model.model_fields


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def _dotted(path: Path_) -> str:
    text = ""
    for step in path:
        name = step if isinstance(step, int) or _looks_like_a_name(step) else "..."
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else name
    return text


def _looks_like_a_name(step: str) -> bool:
    """Of a setting; what else stands in the place of one may be a secret."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", step) is not None and sum(map(str.isdigit, step)) <= 3


# -- what the environment says ---------------------------------------------------------------------------------------

OTHER_VARIABLES = frozenset({"WEIR_ADMIN_KEY", "WEIR_CONFIG"})  # read by others than the settings


def _unknown_in_environment() -> Iterator[Problem]:
    known = list(Settings.model_fields)
    for variable in os.environ:
        if not variable.startswith("WEIR_") or variable in OTHER_VARIABLES:
            continue
        path = tuple(variable.removeprefix("WEIR_").lower().split("__"))
        if path[0] not in known:
            yield Problem(variable, f"there is no such setting{_nearest(path[0], known)}")
            continue
        if len(path) > 1 and path[0] not in ("models", "teams"):
            inner = list(_names_at(Settings, path[:-1]))
            if path[-1] not in inner:
                yield Problem(variable, f"there is no such setting{_nearest(path[-1], inner)}")


def _unset_secrets(settings: Settings, lines: Mapping[Path_, int]) -> Iterator[Problem]:
    for m, model in enumerate(settings.models):
        for e, endpoint in enumerate(model.endpoints):
            if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
                path: Path_ = ("models", m, "endpoints", e, "api_key_env")
                # Somebody may have written the key itself here; names of variables are in capitals.
                name = endpoint.api_key_env if endpoint.api_key_env.isupper() else "that is named here"
                yield Problem(
                    _dotted(path),
                    f"the environment variable {name} is not set",
                    lines.get(path, lines.get(path[:-1], 0)),
                )
