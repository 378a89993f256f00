"""The conductor: one request on one page. The order of the lines is the order of execution."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from weir.admission import Admission
from weir.auth import Authenticator
from weir.core.asgi import Headers, Receive, Scope, Send
from weir.core.errors import ClientGone, GatewayError, InternalError, LimitExceeded, Unauthenticated
from weir.core.exchange import Attempt, Exchange, Trace
from weir.core.operations import COUNT_TOKENS, Operation
from weir.core.types import Ask, Route, Window
from weir.gateway.calls import Calls
from weir.gateway.clients import Clients
from weir.gateway.cors import Cors
from weir.gateway.counting import counted_upstream, tell_estimate
from weir.gateway.dispatch import Dispatch
from weir.gateway.drain import Drain
from weir.gateway.head import read_head, request_id
from weir.gateway.relay import relay
from weir.gateway.replies import DEGRADED, Errors, Reply, limit_headers
from weir.gateway.request import LARGE, CompletionRequest, read_aside, read_body, read_form, read_request
from weir.gateway.turnstile import Turnstile
from weir.gateway.upload import begin_upload
from weir.gateway.watch import FIRST_BYTE, Watches
from weir.gateway.wire import Wire, wire_of
from weir.routing import RouteTable
from weir.telemetry import Telemetry
from weir.usage import Meter, PromptEstimator


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a conductor conducts."""

    auth: Authenticator
    admission: Admission
    routes: RouteTable
    dispatch: Dispatch
    estimator: PromptEstimator
    telemetry: Telemetry
    watches: Watches
    drain: Drain
    turnstile: Turnstile
    clients: Clients
    max_body_bytes: int
    cors: Cors | None = None


class Completions:
    """One hot path as an ASGI application."""

    def __init__(self, operation: Operation, rooms: Rooms) -> None:
        self._operation = operation
        self._errors = Errors(operation)
        self._rooms = rooms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(request_id(scope), self._operation.name, self._rooms.clients.address(scope), scope["path"])
        wire = wire_of(scope, receive, send)
        reply = Reply(wire, exchange.request_id, self._errors, last=self._rooms.drain.announced)
        if self._rooms.cors is not None:
            reply.base += self._rooms.cors.headers_of(scope)
        self._rooms.telemetry.begin(exchange)
        try:
            await self._serve(scope, wire, exchange, reply)
        except GatewayError as error:
            await self._fail(error, exchange, reply)
        except asyncio.CancelledError:
            exchange.outcome = "killed"
            raise
        except Exception as bug:  # noqa: BLE001 - the only broad one on the way of a request: a bug becomes a reported 500
            self._rooms.telemetry.report(bug, exchange)
            await self._fail(InternalError(), exchange, reply)
        finally:
            self._rooms.drain.leave()
            exchange.ended = perf_counter()
            self._rooms.telemetry.record(exchange)

    async def _serve(self, scope: Scope, wire: Wire, exchange: Exchange, reply: Reply) -> None:
        rooms = self._rooms
        rooms.drain.enter()  # 503
        head = read_head(scope)  # 400, 415, 431
        trace = exchange.trace = rooms.telemetry.trace(head.traceparent, head.tracestate)
        principal = exchange.principal = await rooms.auth.authenticate(head.authorization)  # 401
        exchange.mark_reading()
        most, length = rooms.max_body_bytes, head.content_length
        if self._operation.form:
            upload = await begin_upload(scope, wire, length, most, rooms.watches, reply.base)  # 400, 408, 413
            request = read_form(self._operation, upload)  # 400
            exchange.mark_read()
        else:
            body = await read_body(wire, length, most, rooms.watches)  # 408, 413
            exchange.mark_read()
            large = len(body) > LARGE
            request = await read_aside(self._operation, body) if large else read_request(self._operation, body)  # 400
        route = rooms.routes.match(request.model, principal)  # 404
        ask = self._ask(request, route, exchange)
        meter = Meter(ask.prompt_tokens)
        charge = partial(self._charge, exchange, request, meter)
        exchange.mark_asked()
        async with rooms.admission.reserve(principal, ask, charge) as grant:  # 401, 404, 429
            exchange.mark_admitted(grant.tokens, grant.shadow_refusals, degraded=grant.degraded)
            rooms.telemetry.stand(exchange, grant.windows)
            meter.most_output = grant.output_tokens * request.choices
            reply.limits = [*limit_headers(grant.windows), DEGRADED] if grant.degraded else limit_headers(grant.windows)
            if self._operation is COUNT_TOKENS and not counted_upstream(route):
                meter.sent()
                exchange.status = 200
                if (rest := tell_estimate(exchange.estimated_input, reply)) is not None:
                    await rest
                return
            calls = Calls(request, grant.output_tokens, exchange.request_id, head.versions, bounded=grant.bounded)
            if calls.takes_long:
                await asyncio.to_thread(calls.prepare, route)
            place = rooms.turnstile.place(principal.team, route.model, route.places, grant.tokens)
            with rooms.watches.answer(wire, route.timeouts) as watch:  # 499, 504
                async with place as waited:  # 503
                    watch.turn(FIRST_BYTE)
                    exchange.mark_placed(waited=waited)
                    if route.early_headers and request.streaming:
                        watch.ping = reply.begin_early
                    if request.upload is not None:
                        request.upload.accompany(watch, exchange)
                    on_attempt = partial(self._attempt, exchange, meter, trace)
                    sending = rooms.dispatch.send(route, calls, watch, on_attempt, exchange.attempts)
                    async with sending as response:  # 502, 503, 504
                        heard = calls.heard(response, sending.route, meter.told_prompt)
                        await relay(heard, reply, watch, meter, exchange, strip_usage=not request.wants_usage)

    def _ask(self, request: CompletionRequest, route: Route, exchange: Exchange) -> Ask:
        exchange.model, exchange.streaming = route.model, request.streaming
        if exchange.trace is not None and exchange.trace.listener is not None and self._operation.generates:
            exchange.trace.listener.asked(self._operation.name, request.body)
        prompt = self._rooms.estimator.estimate(route.model, request.text_bytes, request.media_tokens)
        exchange.estimated_input = prompt
        if self._operation is COUNT_TOKENS:
            prompt = 0  # it takes a request, and of tokens none
        return Ask(route.model, request.model, prompt, request.output_tokens, request.choices, route.default_max_tokens)

    def _attempt(self, exchange: Exchange, meter: Meter, trace: Trace, attempt: Attempt) -> Headers:
        """It goes to this endpoint now. What other endpoints did with our time is not our overhead."""
        meter.sent()
        exchange.sent = exchange.sent or attempt.began
        return self._rooms.telemetry.headers(trace, attempt)

    def _charge(
        self, exchange: Exchange, request: CompletionRequest, meter: Meter, ending: BaseException | None
    ) -> int | None:
        """What this ending costs, in tokens; called once, by the reservation, when it is left."""
        if ending is not None:
            if not isinstance(ending, GatewayError):
                # A bug, or the process is being torn down: the safe side, once a server has it.
                return exchange.reserved_tokens if exchange.sent else None
            if ending.status < 499 and not exchange.first_byte:
                meter.refused()  # by us, and so before a server had the whole of an upload
        usage, exchange.tokens_from = meter.reading(ending)
        if usage is None:
            return None
        exchange.mark_used(usage)
        if exchange.attempts and (served := self._rooms.routes.find(exchange.attempts[-1].model)) is not None:
            exchange.cost = served.price.of(usage)
        if exchange.tokens_from == "reported" and not request.media_tokens and not exchange.fell_back:
            self._rooms.estimator.learn(exchange.model, request.text_bytes, usage.input_tokens)
        return usage.input_tokens + usage.output_tokens

    async def _fail(self, error: GatewayError, exchange: Exchange, reply: Reply) -> None:
        if type(error) is ClientGone and reply.delivered:
            return  # it had everything, and left before the transport's own end
        if not reply.started:
            error, windows = await self._standing(error, exchange)
        else:
            windows = ()
        if isinstance(error, LimitExceeded) and error.degraded:
            reply.base.append(DEGRADED)
        exchange.status = exchange.status or (200 if reply.started else error.status)  # as the client was told
        exchange.outcome, exchange.code, exchange.reason = error.outcome, error.code, error.reason or ""
        await reply.fail(error, windows)

    async def _standing(self, error: GatewayError, exchange: Exchange) -> tuple[GatewayError, Sequence[Window]]:
        """The limits as they stand, for the headers of a refusal; and whether the caller's key is any good, which until
        the reservation nobody has asked: a revoked key hears 401, whatever else is wrong.
        """
        principal = exchange.principal
        if isinstance(error, LimitExceeded):
            exchange.limit = f"{error.window.scope} {error.window.unit}"
            self._rooms.telemetry.stand(exchange, error.windows)
            return error, error.windows
        if isinstance(error, Unauthenticated):
            if principal is not None:
                self._rooms.auth.forget(principal)
            return error, ()
        if principal is None or error.status in (499, 503):
            return error, ()
        try:
            return error, await self._rooms.admission.standing(principal)
        except Unauthenticated as refused:
            self._rooms.auth.forget(principal)
            return refused, ()
        except GatewayError:
            return error, ()
