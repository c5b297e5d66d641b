"""The custom metrics API on loopback, behind the API server, where prometheus-adapter would be.

Modelled on k8s.io/metrics: pkg/apis/custom_metrics/v1beta2/types.go, and what pkg/client/custom_metrics asks for.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.real.kubernetes.api import NAMESPACE, Api

GROUP, VERSION = "custom.metrics.k8s.io", "v1beta2"
PATH = f"/apis/{GROUP}/{VERSION}"
HOST = {"name": "prometheus-adapter", "namespace": "monitoring"}


@dataclass
class Metric:
    """A metric of the pods in `NAMESPACE`, with the same value for each."""

    api: Api
    name: str
    value: str

    def answer(self, path: str, labels: str) -> Any:
        """The body for a GET; None where there is none."""
        if path == PATH:
            resource = {"name": f"pods/{self.name}", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
            return {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": [resource]}
        if path != f"{PATH}/namespaces/{NAMESPACE}/pods/*/{self.name}":
            return None
        pods = self.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=labels)["items"]
        return {
            "kind": "MetricValueList",
            "apiVersion": f"{GROUP}/{VERSION}",
            "items": [
                {
                    "describedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": pod["metadata"]["name"]},
                    "metric": {"name": self.name},
                    "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "value": self.value,
                }
                for pod in pods
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    metric: Metric

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        answer = self.metric.answer(unquote(asked.path), parse_qs(asked.query).get("labelSelector", [""])[0])
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


@contextmanager
def custom_metrics(metric: Metric) -> Iterator[None]:
    """Registered as an API of the cluster's."""
    keys = metric.api.authority.parent
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"metric": metric}))
    server.daemon_threads = True
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(keys / "server.crt", keys / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    specification = {
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode((keys / "ca.crt").read_bytes()).decode(),
        "service": {**HOST, "port": server.server_port},
    }
    api_service = f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{GROUP}"
    try:
        metric.api.done("POST", "/api/v1/namespaces", {"metadata": {"name": HOST["namespace"]}})
        service = {"metadata": HOST, "spec": {"type": "ExternalName", "externalName": "localhost"}}
        metric.api.done("POST", f"/api/v1/namespaces/{HOST['namespace']}/services", service)
        body = {"metadata": {"name": f"{VERSION}.{GROUP}"}, "spec": specification}
        metric.api.done("POST", api_service.rpartition("/")[0], body)
        yield
    finally:
        metric.api.request("DELETE", api_service)
        metric.api.request("DELETE", f"/api/v1/namespaces/{HOST['namespace']}")
        server.shutdown()
        server.server_close()
