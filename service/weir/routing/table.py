"""Model names and aliases to routes: compiled at start, one dictionary look-up a request."""

from collections.abc import Iterable, Iterator

from weir.core.errors import ModelNotFound
from weir.core.types import Principal, Route


class RouteTable:
    """Every model that is configured. Which of them a caller may use is decided with its limits, in admission."""

    __slots__ = ("_by_name", "_routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.replace(routes)

    def replace(self, routes: Iterable[Route]) -> None:
        """From the next request on; those under way keep the route that they have."""
        self._routes = {route.model: route for route in routes}
        self._by_name = dict(self._routes)
        for route in self._routes.values():
            for alias in route.aliases:
                self._by_name.setdefault(alias, route)

    def match(self, model: str, principal: Principal) -> Route:  # noqa: ARG002 - a ticket: nobody unknown asks for models
        """The route of a model or alias.

        Raises:
            ModelNotFound: no model is called that.

        """
        route = self._by_name.get(model)
        if route is None:
            raise ModelNotFound(param="model", reason="not configured")
        return route

    def find(self, name: str) -> Route | None:
        """The route of a model or alias, whoever asks: for fallbacks, which the configuration names."""
        return self._by_name.get(name)

    def names(self) -> Iterator[tuple[str, Route]]:
        """Every name that can be asked for, aliases too."""
        return iter(self._by_name.items())

    def routes(self) -> Iterator[Route]:
        return iter(self._routes.values())
