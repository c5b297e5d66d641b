"""ML Metadata as a service on loopback: the calls are passed on to its real library, with a database in memory.

The library for Python has lost its filters; Kubeflow uses one, which is applied here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto import metadata_store_service_pb2 as service

# `GetExecutionsInDAG`, backend/src/v2/metadata/client.go: the tasks of one graph.
_PARENT = re.compile(r"custom_properties\.parent_dag_id\.int_value *= *(\d+)")


def _parent(execution: metadata_store_pb2.Execution) -> int:
    return int(execution.custom_properties["parent_dag_id"].int_value)


class _Service(grpc.GenericRpcHandler):
    def __init__(self, store: metadata_store.MetadataStore) -> None:
        self._store, self._lock = store, threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]
        request, response = getattr(service, f"{method}Request"), getattr(service, f"{method}Response")
        return grpc.unary_unary_rpc_method_handler(
            self._passed_on(method, response), request.FromString, response.SerializeToString
        )

    def _passed_on(self, method: str, response: Any) -> Callable[[Any, grpc.ServicerContext], Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            made = response()
            wanted = _PARENT.fullmatch(request.options.filter_query) if method == "GetExecutionsByContext" else None
            if wanted:
                request.options.ClearField("filter_query")
            with self._lock:
                try:
                    self._store._call(method, request, made)
                except errors.StatusError as error:
                    codes = {code.value[0]: code for code in grpc.StatusCode}
                    context.abort(codes[error.error_code], str(error))
            if wanted:
                found = [one for one in made.executions if _parent(one) == int(wanted[1])]
                made = response(executions=found)
            return made

        return answer


@contextmanager
def metadata_server() -> Iterator[tuple[metadata_store.MetadataStore, int]]:
    """The store itself, and the port at which it is served."""
    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    store = metadata_store.MetadataStore(config)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Service(store)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield store, port
    finally:
        server.stop(None).wait()
