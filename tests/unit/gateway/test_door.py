"""Hot paths by POST go straight to their application; everything else goes to the other."""

from typing import Any

import pytest

from weir.core.asgi import Receive, Scope, Send
from weir.gateway.door import Door


class Named:
    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)


async def never(*_: Any) -> Any:
    raise AssertionError("the door reads and sends nothing itself")


ROWS = [
    pytest.param({"type": "http", "method": "POST", "path": "/v1/hot"}, True, id="hot"),
    pytest.param({"type": "http", "method": "GET", "path": "/v1/hot"}, False, id="get"),
    pytest.param({"type": "http", "method": "HEAD", "path": "/v1/hot"}, False, id="head"),
    pytest.param({"type": "http", "method": "POST", "path": "/v1/hot/"}, False, id="slash"),
    pytest.param({"type": "http", "method": "POST", "path": "/v1/HOT"}, False, id="capitals"),
    pytest.param({"type": "http", "method": "POST", "path": "/v1/cold"}, False, id="cold"),
    pytest.param({"type": "lifespan"}, False, id="lifespan"),
    pytest.param({"type": "websocket", "path": "/v1/hot"}, False, id="websocket"),
]


@pytest.mark.parametrize(("scope", "hot"), ROWS)
def test_door(*, scope: Scope, hot: bool) -> None:
    one, rest = Named(), Named()
    walking = Door({"/v1/hot": one}, rest)(scope, never, never)
    with pytest.raises(StopIteration):
        walking.send(None)
    assert (one.scopes, rest.scopes) == (([scope], []) if hot else ([], [scope]))
