"""Which endpoints of a running server answer without its API key."""

from __future__ import annotations

import re

from .server import Server, status_of

ROUTE = re.compile(r"Route: (\S+), (?:Methods|Endpoint)")


def open_endpoints(server: Server) -> list[str] | None:
    """Paths that do not ask for the key, found by asking without it (GET, which starts nothing).

    Returns:
        None if the server's log lists no routes (a quieter log level).
    """
    routes = sorted(set(ROUTE.findall(server.log_text())))
    if not routes:
        return None
    results = {path: status_of(server.root + path.replace("{", "").replace("}", ""), timeout=10.0) for path in routes}
    return [path for path, status in results.items() if status not in (401, None)]
