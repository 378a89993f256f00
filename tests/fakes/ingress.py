"""Real reverse proxies in front of Weir, with the settings that the chart's annotations stand for."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.harness import Process, answers_200, clean_environment, free_port

NGINX = """
daemon off;
worker_processes 1;
{user}
pid {home}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size {body};
    location = /proxy {{ return 200; }}
    location / {{
      proxy_pass http://127.0.0.1:{weir};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {buffering};
      proxy_read_timeout {seconds}s;
      proxy_send_timeout {seconds}s;
    }}
  }}
}}
"""

# The client's timeout is global in its controller, which no annotation of ours reaches: 50 s is its default.
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 50s
  timeout server {seconds}s
frontend weir
  bind 127.0.0.1:{port}
  monitor-uri /proxy
  default_backend weir
backend weir
  server weir 127.0.0.1:{weir}
"""

KINDS = ("nginx", "haproxy")


class MissingProxyError(Exception):
    """The program is not on this machine; the message says how it comes there."""


@dataclass(frozen=True, slots=True)
class Ingress:
    """`ingress.timeoutSeconds` and `config.server.max_body_bytes` of the chart; `buffering` is nginx' own default."""

    timeout_seconds: int
    max_body_bytes: int = 32 << 20
    buffering: bool = False


@contextmanager
def ingress(kind: str, weir: int, settings: Ingress) -> Iterator[int]:
    """The port of a proxy before Weir's."""
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        package = "nginx-light" if kind == "nginx" else kind
        raise MissingProxyError(f"needs {kind} (Debian: apt-get install {package})")
    with TemporaryDirectory(prefix="weir-ingress-") as directory:
        home, port = Path(directory), free_port()
        file = home / "proxy.conf"
        form = NGINX if kind == "nginx" else HAPROXY
        file.write_text(
            form.format(
                home=home,
                port=port,
                weir=weir,
                user="user root;" if os.geteuid() == 0 else "",
                seconds=settings.timeout_seconds,
                body=settings.max_body_bytes,
                buffering="on" if settings.buffering else "off",
            )
        )
        words = ["-p", home, "-c", file.name, "-e", "stderr"] if kind == "nginx" else ["-db", "-f", file]
        process = Process(program, *words, env=clean_environment())
        try:
            process.wait_ready(lambda: answers_200(f"http://127.0.0.1:{port}/proxy"))
            yield port
        finally:
            process.stop()
