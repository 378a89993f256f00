# ruff: noqa: INP001 - a script, run by its path
"""Streams without a pause, each read to its end: `python deploy/load/streams.py --url URL --key KEY`.

For a rollout: whoever is replaced meanwhile may neither cut nor refuse one. Half of the clients ask again on the
connection that they have, half on a new one. Ends with a summary, and with 1 if a single stream was not whole. Standard
library only.
"""

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections import Counter
from urllib.parse import SplitResult, urlsplit

BODY = json.dumps(
    {
        "model": "echo",
        "stream": True,
        "messages": [{"role": "user", "content": "the river runs past the old weir and every boat waits above it"}],
    }
).encode()
END = b"data: [DONE]\n\n"
CLOSED = "closed before an answer"
ASKED_AGAIN = "asked again on a new connection"
TIMEOUT_SECONDS = 60.0


def ask(connection: http.client.HTTPConnection, path: str, key: str) -> str:
    """One stream, in a word: `whole`, or what was wrong with it."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, BODY, headers)
        answer = connection.getresponse()
    except ConnectionRefusedError:
        return "nobody there"
    except ConnectionError:
        return CLOSED
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__}"
    try:
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"cut: {type(error).__name__}"
    if answer.status != http.client.OK:
        return f"refused: {answer.status}"
    return "whole" if said.endswith(END) else "ended without its [DONE]"


def client(url: SplitResult, key: str, end: float, counted: Counter[str], *, keeps: bool) -> None:
    """One after the other until `end`. As any client does, it asks again where a connection that had served before was
    closed before an answer: a server may close it in the very moment. On a new connection that is a failure.
    """
    made = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    path = url.path.rstrip("/") + "/chat/completions"
    connection = made(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
    used = False
    while time.monotonic() < end:
        word = ask(connection, path, key)
        if word == CLOSED and used:
            connection.close()
            word = ask(connection, path, key)
            counted[ASKED_AGAIN] += 1
        counted[word] += 1
        used = keeps and word == "whole"
        if not used:
            connection.close()
    connection.close()


def main() -> int:
    """0 if every stream was whole, and there was one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--url", default="http://localhost:8080/v1", help="of the API, with its /v1")
    parser.add_argument("--key", default=os.environ.get("KEY", ""), help="of a team without limits; $KEY if not given")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    url, end, counts = urlsplit(given.url), time.monotonic() + given.seconds, []
    threads = []
    for number in range(given.clients):
        counts.append(Counter[str]())
        arguments = (url, given.key, end, counts[-1])
        threads.append(threading.Thread(target=client, args=arguments, kwargs={"keeps": number % 2 == 0}))
        threads[-1].start()
    for thread in threads:
        thread.join()
    counted = sum(counts, Counter[str]())
    sys.stdout.write(json.dumps(dict(counted.most_common())) + "\n")
    return 0 if counted["whole"] and not set(counted) - {"whole", ASKED_AGAIN} else 1


if __name__ == "__main__":
    sys.exit(main())
