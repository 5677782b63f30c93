"""The ASGI application: routes, the check of the Host header, and problems as documents."""

from __future__ import annotations

from litestar import Litestar
from litestar.datastructures import State
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, Receive, Scope, Send

from towline.server.access.guard import guard, local_door
from towline.server.api.artifacts.moving import (
    list_inputs,
    put_blob,
    put_manifest,
    read_input,
    show_input,
    show_kept,
)
from towline.server.api.artifacts.routes import list_artifacts, read_artifact
from towline.server.api.cluster.access import access_router
from towline.server.api.cluster.agents import agent_link
from towline.server.api.cluster.enrolment import enrolment_router
from towline.server.api.cluster.nodes import nodes_router
from towline.server.api.cluster.pools import pools_router
from towline.server.api.cluster.usage import show_usage
from towline.server.api.described.routes import show_description
from towline.server.api.events import list_events, stream_events
from towline.server.api.exec import exec_route
from towline.server.api.export import export_events
from towline.server.api.images import images_router
from towline.server.api.jobs import jobs_router
from towline.server.api.logs import logs
from towline.server.api.problems import to_response
from towline.server.api.queues import queues_router
from towline.server.api.secrets import secrets_router
from towline.server.api.service import Service
from towline.server.api.system import (
    collect_garbage,
    healthz,
    list_servers,
    readyz,
    show_metrics,
    show_server,
    stop_server,
)

LOCAL_HOSTS = (b"tow", b"towline", b"localhost")


def make_app(service: Service) -> ASGIApp:
    """The API of one server. There is no CORS: no web page of another origin may ask."""
    return Api(
        route_handlers=[
            jobs_router,
            queues_router,
            images_router,
            secrets_router,
            list_events,
            export_events,
            stream_events,
            logs,
            list_artifacts,
            read_artifact,
            nodes_router,
            pools_router,
            show_usage,
            show_description,
            show_server,
            list_servers,
            stop_server,
            collect_garbage,
            healthz,
            show_metrics,
            readyz,
            agent_link,
            show_kept,
            put_blob,
            put_manifest,
            list_inputs,
            show_input,
            read_input,
            exec_route,
            enrolment_router,
            access_router,
        ],
        guards=[guard],
        exception_handlers={Exception: to_response},
        request_max_body_size=service.settings.body_limit_bytes,
        state=State({"service": service}),
        openapi_config=None,
        logging_config=None,
    )


def local_app(app: ASGIApp) -> ASGIApp:
    """The application as the Unix socket serves it: everybody is its owner."""
    return HostCheck(local_door(app))


class Api(Litestar):
    """Litestar without the plugins that it looks for by itself: they would import pydantic where some
    other package has brought it along, which takes longer than everything else here together."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


class HostCheck:
    """Refuses requests that were meant for another name: a web page cannot reach us through DNS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").partition(b":")[0]
            if host not in LOCAL_HOSTS:
                await _refuse(send)
                return
        await self._app(scope, receive, send)


async def _refuse(send: Send) -> None:
    body = b'{"type":"urn:towline:problem:wrong_host","title":"Wrong host","status":421,'
    body += b'"detail":"The Host header of a local server is towline or localhost.","problems":[]}'
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
