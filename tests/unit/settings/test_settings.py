"""One file per way to be wrong, and what is said of it: the line, the setting, and what would do."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from weir.settings import BadSettings, Problem, Settings, load, remarks

HERE = Path(__file__).parent


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """These variables, and none else that begins with WEIR_; restored afterwards."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with environment():
        yield


def problems(name: str) -> list[Problem]:
    with pytest.raises(BadSettings) as bad:
        load(HERE / f"{name}.yaml")
    assert bad.value.problems
    return bad.value.problems


BAD = {
    # file: line, where, parts of what is said
    "unknown_section": (3, "sevrer", ["no such setting", "did you mean 'server'?"]),
    "unknown_section_far_off": (1, "zzz", ["no such setting", "known are", "server"]),
    "unknown_name": (3, "server.prot", ["did you mean 'port'?"]),
    "unknown_name_in_a_model": (5, "models[0].time_outs", ["did you mean 'timeouts'?"]),
    "unknown_name_in_timeouts": (7, "models[0].timeouts.first_bite", ["did you mean 'first_byte'?"]),
    "unknown_name_in_an_endpoint": (6, "models[0].endpoints[1].wieght", ["did you mean 'weight'?"]),
    "unknown_name_in_a_team": (5, "teams[1].rmp", ["did you mean 'rpm'?"]),
    "unknown_name_in_a_key": (5, "teams[0].keys[0].tmp", ["did you mean 'tpm'?"]),
    "unknown_name_in_drain": (2, "drain.announce_second", ["did you mean 'announce_seconds'?"]),
    "unknown_name_with_units_missing": (2, "drain.deadline", ["did you mean 'deadline_seconds'?"]),
    "wrong_type_port": (2, "server.port", ["integer"]),
    "wrong_type_section": (1, "server", ["names and values"]),
    "wrong_type_models": (1, "models", ["must be a list"]),
    "wrong_type_model": (2, "models[0]", ["names and values"]),
    "endpoints_not_a_list": (4, "models[0].endpoints", ["must be a list"]),
    "models_without_a_value": (1, "models", ["has no value", "leave it out"]),
    "redis_url_unknown": (2, "redis.url", ["redis+sentinel://"]),
    "port_out_of_range": (2, "server.port", ["65535"]),
    "ports_the_same": (1, "server.ops_port", ["server.port", "server.ops_port", "differ"]),
    "body_limit_too_small": (2, "server.max_body_bytes", ["1024"]),
    "timeout_zero": (5, "models[0].timeouts.idle", ["greater than 0"]),
    "timeout_beyond_a_day": (4, "models[0].timeouts.total", ["86400"]),
    "timeout_not_a_number": (4, "models[0].timeouts.total", []),
    "model_without_a_name": (2, "models[0].name", ["required"]),
    "model_name_with_a_space": (3, "models[0].name", ["letters, digits"]),
    "model_name_twice": (3, "models[1].name", ["'m'", "twice"]),
    "alias_is_a_model": (3, "models[1].aliases[0]", ["'m'", "twice"]),
    "alias_bad": (6, "models[0].aliases[1]", ["letters, digits"]),
    "backend_unknown": (3, "models[0].backend", ["'openai'", "'echo'"]),
    "model_without_endpoints": (3, "models[0]", ["at least one endpoint"]),
    "echo_with_endpoints": (2, "models[0]", ["has no endpoints"]),
    "anthropic_without_endpoints": (2, "models[0]", ["'anthropic'", "at least one endpoint"]),
    "engine_unknown": (3, "models[0].engine", ["'vllm'", "'llamacpp'"]),
    "endpoints_of_two_engines": (2, "models[0]", ["generic, openai", "two models"]),
    "serves_unknown": (3, "models[0].serves[1]", ["'messages'"]),
    "api_version_without_azure": (2, "models[0]", ["'engine: azure'"]),
    "api_version_with_a_query": (6, "models[0].endpoints[0].api_version", ["2024-10-21"]),
    "url_without_scheme": (4, "models[0].endpoints[0].url", ["http://"]),
    "url_of_a_file": (4, "models[0].endpoints[0].url", ["http://"]),
    "url_without_host": (4, "models[0].endpoints[0].url", ["host"]),
    "url_with_a_password": (4, "models[0].endpoints[0].url", ["api_key_env"]),
    "url_with_half_a_password": (4, "models[0].endpoints[0].url", ["port"]),
    "url_that_is_unreadable": (4, "models[0].endpoints[0].url", ["cannot be read"]),
    "url_with_a_query": (4, "models[0].endpoints[0].url", ["api_key_env"]),
    "endpoint_without_url": (4, "models[0].endpoints[0].url", ["required"]),
    "weight_zero": (4, "models[0].endpoints[0].weight", ["greater than 0"]),
    "api_key_env_not_set": (5, "models[0].endpoints[0].api_key_env", ["A_VARIABLE_THAT_IS_NOT_SET", "not set"]),
    "api_key_env_is_a_key": (5, "models[0].endpoints[0].api_key_env", ["no name of an environment variable"]),
    "api_key_env_may_be_a_key": (5, "models[0].endpoints[0].api_key_env", ["that is named here is not set"]),
    "default_max_tokens_zero": (4, "models[0].default_max_tokens", ["1"]),
    "max_tokens_field_unknown": (4, "models[0].max_tokens_field", ["'max_tokens'"]),
    "price_negative": (4, "models[0].price.input", ["0"]),
    "limit_zero": (3, "teams[0].tpm", ["1"]),
    "limit_a_fraction": (3, "teams[0].tpm", ["integer"]),
    "limit_in_words": (3, "teams[0].rpm", ["integer"]),
    "limit_true": (3, "teams[0].rpm", []),
    "limit_beyond_exactness": (3, "teams[0].tpm", []),
    "burst_too_long": (3, "teams[0].burst_seconds", ["86400"]),
    "shadow_unknown": (3, "teams[0].shadow[0]", ["'tpm'"]),
    "team_without_a_name": (2, "teams[0].name", ["required"]),
    "team_name_bad": (2, "teams[0].name", []),
    "team_name_twice": (3, "teams[1].name", ["'search'", "twice"]),
    "team_models_bad": (3, "teams[0].models[0]", ["'llama-*'"]),
    "key_without_digest": (4, "teams[0].keys[0].digest", ["required"]),
    "key_instead_of_its_digest": (4, "teams[0].keys[0].digest", ["sha256sum", "-hmac"]),
    "on_outage_unknown": (2, "redis.on_outage", ["'degrade'", "'closed'", "'open'"]),
    "log_level_unknown": (2, "telemetry.log_level", ["'info'"]),
    "trace_sample_above_one": (2, "telemetry.trace_sample", ["1"]),
    "otlp_endpoint_without_scheme": (2, "telemetry.otlp_endpoint", ["the collector's url", "http://"]),
    "otlp_endpoint_without_host": (2, "telemetry.otlp_endpoint", ["host"]),
    "otlp_endpoint_port_out_of_range": (2, "telemetry.otlp_endpoint", ["65535"]),
    "otlp_endpoint_with_a_password": (2, "telemetry.otlp_endpoint", ["otlp_headers"]),
    "otlp_header_with_a_line_end": (3, "telemetry.otlp_headers", ["'authorization'", "line end"]),
    "otlp_header_without_a_name": (3, "telemetry.otlp_headers", ["no header's name"]),
    "otlp_protocol_unknown": (2, "telemetry.otlp_protocol", ["'http/protobuf'", "'grpc'"]),
    "semconv_unknown": (2, "telemetry.semconv", ["'v1.41'", "'latest'"]),
    "name_twice": (4, "server.port", ["twice"]),
    "section_twice": (4, "server", ["twice"]),
    "not_yaml_indent": (3, "", ["not valid YAML"]),
    "not_yaml_tab": (2, "", ["not valid YAML"]),
    "not_yaml_unclosed": (2, "", ["not valid YAML: the file ends before a [, a { or a quote of line 1 is closed"]),
    "not_yaml_unclosed_inside": (2, "", ["not valid YAML: expected ',' or '}', but got ':'"]),
    "not_yaml_cut_off": (4, "", ["not valid YAML: the file ends before a [, a { or a quote of line 3 is closed"]),
    "not_a_mapping": (1, "", ["names and values"]),
    "only_a_text": (1, "", ["names and values"]),
    "tag_of_python": (1, "", ["not valid YAML", "quotes around"]),
    "secret_read_as_an_alias": (2, "", ["not valid YAML", "undefined alias", "quotes around"]),
    "secret_read_as_a_tag": (2, "", ["not valid YAML", "tag", "quotes around"]),
    "secret_read_as_a_name": (2, "keys....", ["no such setting", "known are pepper"]),
    "date_that_there_is_not": (None, None, ["not valid YAML", "date"]),
    "cors_origin_with_a_path": (4, "server.cors_origins[1]", ["https://chat.example.com", "without a path"]),
    "proxy_that_is_no_network": (2, "server.trusted_proxies[0]", ["10.0.0.0/8"]),
    "two_documents": (2, "", ["not valid YAML"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name: str) -> None:
    line, where, said = BAD[name]
    (problem,) = problems(name)
    if line is not None:
        assert (problem.line, problem.where) == (line, where)
        assert str(problem).startswith(f"line {line}: {where}")
    for part in said:
        assert part in str(problem)
    assert ("quotes around" in str(problem)) is ("quotes around" in said), "no advice for another mistake"
    assert "canary" not in str(problem), "what should not be in the file is not printed either"
    assert "Value error" not in str(problem)


def test_every_bad_file_has_its_row() -> None:
    files = {path.stem for path in HERE.glob("*.yaml")}
    assert files == {*BAD, "several_things", "secret_not_set_beside_the_rest", "good"}


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    found = problems("several_things")
    assert [(problem.line, problem.where) for problem in found] == [
        (1, "sevrer"),
        (3, "server.port"),
        (4, "server.prot"),
        (6, "models[0]"),
    ]


def test_traces_by_grpc_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(WEIR_TELEMETRY__OTLP_PROTOCOL="grpc"):
        assert load(None).telemetry.otlp_protocol == "grpc"
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
        with pytest.raises(BadSettings) as bad:
            load(None)
    (problem,) = bad.value.problems
    assert problem.where == "WEIR_TELEMETRY__OTLP_PROTOCOL"
    assert "pip install 'weir-gateway[grpc]'" in problem.what


class TestGood:
    def test_the_example_of_the_design_is_taken(self) -> None:
        settings = load(HERE / "good.yaml")
        (model,) = settings.models
        assert model.name == "llama-3.3-70b"
        assert model.aliases == ("gpt-4o-mini",)
        assert model.endpoints[0].url == "http://vllm-0.vllm:8000/v1"
        assert model.timeouts.first_byte == 300
        assert settings.server.max_body_bytes == 33_554_432
        assert settings.teams[0].tpm == 200_000
        assert settings.drain.deadline_seconds == 300

    def test_nothing_at_all_is_taken(self, tmp_path: Path) -> None:
        empty = tmp_path / "weir.yaml"
        empty.write_text("# nothing yet\n")
        assert load(empty) == load(None) == Settings()

    def test_is_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load(None).server.port = 1  # type: ignore[misc]

    def test_a_slash_at_an_urls_end_is_one_too_many(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text('models: [{name: m, endpoints: [{url: "http://a/v1/"}]}]')
        assert load(file).models[0].endpoints[0].url == "http://a/v1"

    def test_secrets_are_not_shown(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text("redis: {url: 'redis://:canary@a/0'}\nkeys: {pepper: canary}\n")
        settings = load(file)
        assert "canary" not in repr(settings) + str(settings.model_dump())
        assert settings.redis.url is not None
        assert settings.redis.url.get_secret_value() == "redis://:canary@a/0"

    def test_a_secret_that_is_set_is_found(self, tmp_path: Path) -> None:
        with environment(A_VARIABLE_THAT_IS_NOT_SET="now it is"):
            assert load(HERE / "api_key_env_not_set.yaml").models


UNREADABLE = [
    pytest.param(None, id="not-there"),
    pytest.param(b"server: \xff\xfe", id="not-utf-8"),
    pytest.param(b"server: \x00", id="control-character"),
]


@pytest.mark.parametrize("content", UNREADABLE)
def test_unreadable(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "weir.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadSettings) as bad:
        load(file)
    assert len(bad.value.problems) == 1


class TestEnvironment:
    @pytest.mark.parametrize(
        ("variable", "value", "path", "taken"),
        [
            pytest.param("WEIR_SERVER__PORT", "8123", "server.port", 8123, id="number"),
            pytest.param("WEIR_SERVER__DOCS", "false", "server.docs", False, id="boolean"),
            pytest.param("WEIR_TELEMETRY__LOG_LEVEL", "debug", "telemetry.log_level", "debug", id="text"),
            pytest.param("WEIR_SERVER", '{"port": 8123}', "server.port", 8123, id="section-as-json"),
            pytest.param("WEIR_DRAIN__ANNOUNCE_SECONDS", "0", "drain.announce_seconds", 0, id="zero"),
        ],
    )
    def test_sets_a_value(self, *, variable: str, value: str, path: str, taken: object) -> None:
        with environment(**{variable: value}):
            found: object = load(None)
            for step in path.split("."):
                found = getattr(found, step)
            assert found == taken

    def test_sets_models_as_json(self) -> None:
        with environment(WEIR_MODELS='[{"name": "m", "backend": "echo"}]'):
            assert [model.name for model in load(None).models] == ["m"]

    def test_wins_over_the_file_and_leaves_the_rest_of_it(self) -> None:
        with environment(WEIR_SERVER__PORT="8123"):
            settings = load(HERE / "good.yaml")
        assert settings.server.port == 8123
        assert settings.server.sse_keepalive_seconds == 15
        assert settings.models

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            pytest.param("WEIR_SEVRER__PORT", "1", "did you mean 'WEIR_SERVER__PORT'?", id="section"),
            pytest.param("WEIR_SERVER__PROT", "1", "did you mean 'WEIR_SERVER__PORT'?", id="name"),
            pytest.param("WEIR_SERVER_PORT", "1", "did you mean 'WEIR_SERVER__PORT'?", id="one-underscore"),
            pytest.param("WEIR_REDIS_URL", "redis://a", "did you mean 'WEIR_REDIS__URL'?", id="of-redis"),
            pytest.param("WEIR_NOTHING_LIKE_IT", "1", "no such setting; known are drain,", id="far-off"),
            pytest.param("WEIR_SERVER__NOTHING_LIKE_IT", "1", "no such setting; known are body", id="far-off-inside"),
            pytest.param("WEIR_SERVER__PORT", "eighty", "integer", id="no-number"),
            pytest.param("WEIR_MODELS", "[{", "must be JSON, and is not: Expecting property name", id="no-json"),
            pytest.param("WEIR_SERVER__TRUSTED_PROXIES", "10.0.0.0/8", "must be JSON", id="no-json-inside"),
            pytest.param("WEIR_SERVER", '{"prot": 1}', "server.prot: there is no such setting", id="name-in-json"),
            pytest.param("WEIR_MODELS", '[{"name": "m"}]', "models[0]: a model with backend", id="model-in-json"),
            pytest.param("WEIR_REDIS__URL", "http://a", "redis+sentinel://", id="url-of-something-else"),
        ],
    )
    def test_says_what_is_wrong(self, *, variable: str, value: str, said: str) -> None:
        with environment(**{variable: value}), pytest.raises(BadSettings) as bad:
            load(HERE / "good.yaml")
        (problem,) = bad.value.problems
        assert problem.where.startswith(variable)
        assert said in str(problem)
        assert problem.told(HERE / "good.yaml") == str(problem), "the file has nothing to do with it"

    def test_what_is_wrong_in_the_file_is_said_beside_a_variable_that_cannot_be_read(self) -> None:
        with environment(WEIR_MODELS="[{"), pytest.raises(BadSettings) as bad:
            load(HERE / "unknown_name.yaml")
        assert [problem.where for problem in bad.value.problems] == ["WEIR_MODELS", "server.prot"]

    @pytest.mark.parametrize("variable", ["WEIR_CONFIG", "WEIR_URL", "WEIR_API_KEY", "WEIR_MODEL"])
    def test_leaves_to_others_what_is_theirs(self, variable: str) -> None:
        """Those of the examples for clients too: who tries them out has them in the shell where weir is typed."""
        with environment(**{variable: "x"}):
            load(None)

    def test_a_wrong_one_and_a_wrong_file_are_both_said(self) -> None:
        with environment(WEIR_SEVRER="1"), pytest.raises(BadSettings) as bad:
            load(HERE / "unknown_name.yaml")
        assert "WEIR_SEVRER" in str(bad.value)
        assert "server.prot" in str(bad.value)


class TestCommandLine:
    def test_wins_over_the_file(self) -> None:
        settings = load(HERE / "good.yaml", {"server": {"port": 8123}})
        assert settings.server.port == 8123
        assert settings.server.max_body_bytes == 33_554_432

    def test_wins_over_the_environment(self) -> None:
        with environment(WEIR_SERVER__PORT="8124", WEIR_SERVER__HOST="localhost"):
            settings = load(None, {"server": {"port": 8123}})
        assert settings.server.port == 8123
        assert settings.server.host == "localhost"

    def test_is_validated_too(self) -> None:
        with pytest.raises(BadSettings):
            load(None, {"server": {"port": 0}})

    def test_is_blamed_for_what_it_says(self) -> None:
        with pytest.raises(BadSettings) as bad:
            load(HERE / "good.yaml", {"server": {"port": 0}})
        (problem,) = bad.value.problems
        assert (problem.where, problem.line, problem.in_file) == ("server.port", 0, False)


class TestToServe:
    """What a running Weir needs, and teams and keys do without."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            pytest.param("# nothing yet\n", 0, id="empty"),
            pytest.param("server: {port: 1}\nmodels: []\n", 2, id="no-models"),
        ],
    )
    def test_wants_a_model(self, text: str, line: int, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text(text)
        assert load(file).models == ()
        with pytest.raises(BadSettings) as bad:
            load(file, to_serve=True)
        assert bad.value.problems == [Problem("models", "there is nothing to serve; add a model", line)]

    def test_says_it_beside_the_rest(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text("server: {prot: 1}\n")
        with pytest.raises(BadSettings) as bad:
            load(file, to_serve=True)
        assert [problem.where for problem in bad.value.problems] == ["models", "server.prot"]

    def test_takes_the_models_of_the_environment_and_of_the_command_line(self) -> None:
        models = [{"name": "m", "backend": "echo"}]
        assert load(None, {"models": models}, to_serve=True).models
        with environment(WEIR_MODELS=json.dumps(models)):
            assert load(None, to_serve=True).models


def test_a_secret_that_is_not_set_is_said_beside_the_rest() -> None:
    found = problems("secret_not_set_beside_the_rest")
    assert [(problem.line, problem.where) for problem in found] == [
        (3, "models[0].backend"),
        (6, "models[0].endpoints[0].api_key_env"),
        (7, "redis.url"),
    ]
    assert "A_VARIABLE_THAT_IS_NOT_SET is not set" in found[1].what


class TestRemarks:
    def test_what_was_given_and_is_not_acted_on(self) -> None:
        assert remarks(load(HERE / "good.yaml")) == [
            "the fallback 'qwen-32b' of model 'llama-3.3-70b' is no other model here, and never asked",
        ]

    def test_an_address_without_v1(self, tmp_path: Path) -> None:
        file = tmp_path / "weir.yaml"
        file.write_text('models: [{name: m, endpoints: [{url: "http://vllm:8000"}, {url: "http://vllm-1:8000/v1"}]}]')
        (remark,) = remarks(load(file))
        assert remark == "the url http://vllm:8000 of model 'm' has no path, and most servers want /v1 at its end"

    def test_that_prompts_leave_the_house(self) -> None:
        telemetry = {"otlp_endpoint": "http://otel-collector:4318", "capture_content": True}
        (remark,) = remarks(load(None, {"telemetry": telemetry}))
        assert "prompts and answers" in remark

    def test_names_nothing_where_nothing_was_given(self) -> None:
        assert remarks(load(None)) == []

    def test_names_nothing_because_of_the_command_line(self) -> None:
        assert remarks(load(None, {"server": {"port": 8123}})) == []
