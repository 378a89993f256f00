"""Several upstream servers, each with a script for every visit."""

from collections.abc import Sequence

from tests.fakes.backend import ScriptedBackend, Step, Visit
from weir.backend import Call
from weir.core.types import Endpoint

Script = Sequence[Step]


class Fleet(ScriptedBackend):
    """See `weir.backend.Backend`. By address: the scripts of its visits in turn, of which the last is for all later."""

    def __init__(self, **scripts: Sequence[Script]) -> None:
        super().__init__()
        self.scripts = {name: list(given) for name, given in scripts.items()}

    def send(self, endpoint: Endpoint, call: Call) -> Visit:
        scripts = self.scripts[name_of(endpoint.url)]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        visit = Visit(endpoint, call, list(script))
        self.visits.append(visit)
        return visit

    @property
    def visited(self) -> list[str]:
        return [name_of(visit.endpoint.url) for visit in self.visits]

    def settled(self) -> bool:
        """Whatever was entered was left."""
        return all(visit.left for visit in self.visits if visit.entered)


def address(name: str) -> str:
    return f"http://{name}/v1"


def name_of(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/v1")
