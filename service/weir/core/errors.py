"""Every way in which a caller can be refused or failed: a class, a sentence, a place in the protocol.

Rooms raise these; `gateway/replies.py` writes them in the caller's dialect. A message says what happened and what to
do; keys, prompts and hosts never appear in one. `outcome` is the word for logs and metrics.
"""

from collections.abc import Sequence
from typing import ClassVar

from weir.core.types import Window


class GatewayError(Exception):
    """The root. `status` is HTTP's; `type` and `code` are those of OpenAI's error object."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    outcome: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "Something went wrong inside the gateway. Try again; if it stays, report the x-request-id."

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        reason: str | None = None,
    ) -> None:
        """`retry_after` in seconds; `reason` is for the log only, never for the caller."""
        super().__init__(message or self.message)
        self.text = message or self.message
        self.param = param
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.reason = reason


class InternalError(GatewayError):
    """A bug of ours, reported as itself."""


# -- who are you -----------------------------------------------------------------------------------------------------


class Unauthenticated(GatewayError):
    """Unknown, revoked and expired look the same from outside; the difference is in `reason`, for the log."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"
    outcome = "refused_key"
    message = (
        "Incorrect API key provided, or the key is no longer valid. Check the key in your client's configuration, "
        "or ask your team for a new one."
    )


class KeyMissing(Unauthenticated):
    message = (
        "Incorrect API key provided: there is none in this request. Send it as 'Authorization: Bearer <your key>', "
        "or as 'x-api-key'."
    )


class NotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "not_found"
    outcome = "refused_request"
    message = "There is nothing at this address. The API is under /v1, its description under /docs."


class ModelNotFound(GatewayError):
    """A model that the key may not use does not exist for it."""

    status, type, code = 404, "invalid_request_error", "model_not_found"
    outcome = "refused_model"
    message = "The model does not exist or your key may not use it. GET /v1/models lists what it may."


# -- what do you want ------------------------------------------------------------------------------------------------


class BadRequest(GatewayError):
    status, type, code = 400, "invalid_request_error", "invalid_request"
    outcome = "refused_request"
    message = "The request cannot be understood."


class MalformedBody(BadRequest):
    code = "malformed_body"
    message = "The request body is not valid JSON."


class InvalidValue(BadRequest):
    code = "invalid_value"


class NotServed(BadRequest):
    """Its server does not do such a thing, and nothing that it does can be put into other words for it."""

    code = "unsupported_endpoint"
    message = "The model does not answer at this address. GET /v1/models lists what there is."


class BodyTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"
    outcome = "refused_request"
    message = "The request body is larger than this endpoint accepts."


class UnsupportedEncoding(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_content_encoding"
    outcome = "refused_request"
    message = "Compressed request bodies are not accepted. Send the JSON without Content-Encoding."


class BodyTimeout(GatewayError):
    status, type, code = 408, "invalid_request_error", "request_timeout"
    outcome = "refused_request"
    message = "The request body did not arrive in time. Send it whole, or check the network in between."


class HeadTimeout(BodyTimeout):
    message = "The request's headers did not arrive in time. Send them whole, or check the network in between."


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"
    outcome = "refused_request"
    message = "This address does not take that method."


class HeadersTooLarge(GatewayError):
    status, type, code = 431, "invalid_request_error", "headers_too_large"
    outcome = "refused_request"
    message = "The request's headers are larger than this endpoint accepts."


# -- not now ---------------------------------------------------------------------------------------------------------


class LimitExceeded(GatewayError):
    """A limit of the key or of its team refuses. `window` is the one that does, `windows` are all, for the headers.
    `degraded`: Redis is away, and it was this process' share of the limit.
    """

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"
    outcome = "refused_limit"
    message = "A limit is reached."

    def __init__(
        self, window: Window, windows: Sequence[Window], *, needed: int, retry_after: float | None, detail: str
    ) -> None:
        waits_help = retry_after is not None and retry_after <= 60
        super().__init__(detail, retry_after=retry_after, should_retry=None if waits_help else False)
        self.window = window
        self.windows = windows
        self.degraded = False
        self.needed = needed


class RequestsExceeded(LimitExceeded):
    outcome = "refused_requests"


class TokensExceeded(LimitExceeded):
    type, code = "tokens", "tokens_exceeded"
    outcome = "refused_tokens"


class ConcurrencyExceeded(LimitExceeded):
    code = "concurrency_exceeded"
    outcome = "refused_concurrency"


class RequestTooLargeForLimit(LimitExceeded):
    type, code = "tokens", "request_too_large_for_limit"
    outcome = "refused_too_large"


class Overloaded(GatewayError):
    """No place came free in time, or too many wait already."""

    status, type, code = 503, "server_error", "overloaded"
    outcome = "refused_overload"
    message = "More requests are waiting than can be served at the moment. Send the request again a little later."


class Draining(GatewayError):
    status, type, code = 503, "server_error", "server_draining"
    outcome = "refused_draining"
    message = "This replica is shutting down. Send the request again; another one will take it."


class ServerDraining(Draining):
    """The same after the request was taken: its time ran out."""

    outcome = "drained"
    message = "This replica is shutting down and had to end the request. Send it again; another one will take it."


class StoreUnavailable(GatewayError):
    """Keys and limits cannot be read. `sent` says that the command was on its way, so it may have been carried out."""

    status, type, code = 503, "server_error", "limits_unavailable"
    outcome = "store_unavailable"
    message = "Keys and limits cannot be checked at the moment. Try again shortly."

    def __init__(self, *, reason: str = "", retry_after: float | None = 1.0, sent: bool = False) -> None:
        super().__init__(reason=reason, retry_after=retry_after)
        self.sent = sent


# -- the other side --------------------------------------------------------------------------------------------------


class UpstreamTrouble(GatewayError):
    """The model's server did not do it, or not to the end."""

    outcome = "upstream_error"


class UpstreamUnreachable(UpstreamTrouble):
    status, type, code = 502, "upstream_error", "upstream_unreachable"
    outcome = "upstream_unreachable"
    message = "The model's server cannot be reached. Try again shortly; the platform team sees this too."


class UpstreamFailed(UpstreamTrouble):
    """An answer that is no answer: HTML, a cut body, a stream without its end, a refusal of our own credentials."""

    status, type, code = 502, "upstream_error", "upstream_error"
    outcome = "upstream_error"
    message = "The model's server gave an answer that cannot be passed on."


class UpstreamBroke(UpstreamFailed):
    """The connection ended before a byte of the answer. `reused` says that it had served before: most likely it was
    closed as idle in the moment in which it was used, and nobody has read the request.
    """

    message = "The model's server closed the connection before it answered."

    def __init__(self, *, reason: str, reused: bool = False) -> None:
        super().__init__(reason=reason)
        self.reused = reused


class EndpointsFull(UpstreamTrouble):
    """Every endpoint that is well has as many requests as it may have."""

    status, type, code = 503, "server_error", "overloaded"
    outcome = "refused_overload"
    message = "The model's servers have as much to do as they may have. Send the request again a little later."


class UpstreamBusy(UpstreamTrouble):
    status, type, code = 503, "upstream_error", "upstream_overloaded"
    outcome = "upstream_error"
    message = "The model's server is overloaded and asks to come back later."


class UpstreamTimeout(UpstreamTrouble):
    """`phase` is one of connect, first byte, idle, total; it stands in the message."""

    status, type, code = 504, "upstream_error", "upstream_timeout"
    outcome = "upstream_timeout"

    def __init__(self, phase: str, seconds: float) -> None:
        what = {
            "connect": "did not accept a connection",
            "first byte": "did not begin to answer",
            "idle": "stopped sending",
            "total": "did not finish",
        }[phase]
        super().__init__(
            f"The model's server {what} within {seconds:g} seconds (timeout phase: {phase}).", reason=phase
        )
        self.phase = phase


# -- this side -------------------------------------------------------------------------------------------------------


class ClientGone(GatewayError):
    """The caller left. Nobody reads this answer; 499 is nginx's word for the log."""

    status, code = 499, "client_disconnect"
    outcome = "client_disconnect"
    message = "The client closed the connection."


class ClientStalled(ClientGone):
    code = "client_stalled"
    outcome = "client_stalled"
    message = "The client stopped reading."
