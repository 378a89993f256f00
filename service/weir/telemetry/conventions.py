"""The names that spans bear, in OpenTelemetry's words where it has some; what is ours begins with `weir.`

The names of HTTP come from the semconv package. Those of generative AI left it with v1.42 for a repository of their
own, where nothing is stable or released yet; so they stand here, and what differs between the two is a table.
"""

from typing import Literal, NamedTuple

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.service_attributes import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY, URL_SCHEME

from weir.core.operations import MESSAGES, RESPONSES

__all__ = [
    "CLIENT_ADDRESS",
    "ERROR_TYPE",
    "HTTP_REQUEST_METHOD",
    "HTTP_REQUEST_RESEND_COUNT",
    "HTTP_RESPONSE_STATUS_CODE",
    "HTTP_ROUTE",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "SERVICE_INSTANCE_ID",
    "SERVICE_NAME",
    "SERVICE_VERSION",
    "URL_PATH",
    "URL_QUERY",
    "URL_SCHEME",
]

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"
# The conventions know kinds of work, and not addresses: all three are a chat. Others bear our own word.
OPERATION_NAMES = {MESSAGES.name: "chat", RESPONSES.name: "chat"}

WEIR_REQUEST_ID = "weir.request_id"
WEIR_TEAM = "weir.team"
WEIR_KEY_ID = "weir.key_id"
WEIR_MODEL = "weir.model"
WEIR_OUTCOME = "weir.outcome"
WEIR_DEGRADED = "weir.degraded"
WEIR_LIMIT = "weir.limit"
WEIR_SHADOW_REFUSALS = "weir.shadow_refusals"
WEIR_TOKENS_FROM = "weir.tokens_from"
WEIR_COST = "weir.cost_usd"
WEIR_CONTENT_CUT = "weir.content_cut"
# The conventions know the time to the first chunk as an attribute and no event, and `gen_ai.` is theirs alone; this is
# what our metric and our log line call it.
FIRST_TOKEN = "weir.first_token"  # noqa: S105 - of a model, not of a key

Semconv = Literal["v1.41", "latest"]


class Conventions(NamedTuple):
    """What differs. `schema_url` describes all names of a version; of the new repository none is published yet."""

    schema_url: str | None
    messages_have_finish_reason: bool  # else gen_ai.response.finish_reasons says it alone


CONVENTIONS: dict[Semconv, Conventions] = {
    "v1.41": Conventions("https://opentelemetry.io/schemas/1.41.0", messages_have_finish_reason=True),
    "latest": Conventions(None, messages_have_finish_reason=False),
}
