"""The gateway that a good engineer writes in an afternoon: FastAPI, httpx, redis-py. What Weir has to beat.

One key lookup and one token bucket a request; no settlement, no team, no concurrency, no metrics, no log line.
Settings by environment: PLAIN_UPSTREAM (URL with /v1), PLAIN_REDIS (URL). `plain:key:<sha256>` holds requests a minute.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from redis.asyncio import Redis
from starlette.background import BackgroundTask

TOKEN_BUCKET = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local rpm = tonumber(ARGV[1])
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = math.min(rpm, (tonumber(bucket[1]) or rpm) + (now - (tonumber(bucket[2]) or now)) * rpm / 60)
local allowed = level >= 1
if allowed then level = level - 1 end
redis.call('HSET', KEYS[1], 'level', level, 'at', now)
redis.call('EXPIRE', KEYS[1], 120)
return allowed and 1 or 0
"""

redis = Redis.from_url(os.environ["PLAIN_REDIS"])
take_token = redis.register_script(TOKEN_BUCKET)
# The pool's default of 100 connections would refuse the thousand open streams of the benchmark.
client = httpx.AsyncClient(
    base_url=os.environ["PLAIN_UPSTREAM"],
    timeout=httpx.Timeout(300, connect=2),
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=200),
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await client.aclose()
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat_completions(request: Request) -> StreamingResponse:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    digest = hashlib.sha256(key.encode()).hexdigest()
    rpm = await redis.get(f"plain:key:{digest}")
    if scheme.lower() != "bearer" or rpm is None:
        raise HTTPException(401, "invalid API key")
    if not await take_token(keys=[f"plain:bucket:{digest}"], args=[int(rpm)]):
        raise HTTPException(429, "rate limit exceeded", headers={"retry-after": "1"})
    body, headers = await request.body(), {"content-type": "application/json"}
    forwarded = client.build_request("POST", "chat/completions", content=body, headers=headers)
    answer = await client.send(forwarded, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        media_type=answer.headers.get("content-type"),
        background=BackgroundTask(answer.aclose),
    )
