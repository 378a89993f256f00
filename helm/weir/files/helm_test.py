"""`helm test`: is it ready, does it refuse who has no key, does it answer who has one."""

import json
import os
import sys
import urllib.error
import urllib.request

OPS, API = os.environ["WEIR_TEST_OPS"], os.environ["WEIR_TEST_API"]
KEY, MODEL = os.environ.get("WEIR_TEST_KEY", ""), os.environ["WEIR_TEST_MODEL"]
BODY = {"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": "Hello, river!"}]}


def ask(url, key=None, body=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def check(what, wanted, found):
    status, body = found
    good = status == wanted
    print(f"{'ok' if good else 'NOT OK'}: {what}: {status}" + ("" if good else f", not {wanted}: {body[:500]}"))
    return good


chat = f"{API}/v1/chat/completions"
results = [
    check("it is ready", 200, ask(f"{OPS}/readyz")),
    check("no key is refused", 401, ask(chat, None, BODY)),
    check("a wrong key is refused", 401, ask(chat, "sk-wrong", BODY)),
]
if KEY:
    results.append(check(f"{MODEL} answers", 200, ask(chat, KEY, BODY)))
else:
    print("not asked: an answer, which needs helmTest.keySecret")
sys.exit(not all(results))
