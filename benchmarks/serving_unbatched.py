"""What one writes first: grpcio's threaded server with TF Serving's stubs around our engine, one request at a time.

    .venv/bin/python -m benchmarks.serving_unbatched VERSION_FOLDER [--threads N]

Prints its port once it serves. The engine and the conversion of tensors are our server's, so the comparison is about
the rest: grpcio's own way to run a handler, and computing each request by itself. (One thread for an operation is the
engine's faster setting for this server, too.)
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.tensors import decode_tensor, encode_tensor


class UnbatchedService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict; the other methods stay UNIMPLEMENTED."""

    def __init__(self, engine: Engine, version: int) -> None:
        self._engine = engine
        self._version = version

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Computes the request in this thread."""
        signature = request.model_spec.signature_name
        inputs = {name: decode_tensor(tensor) for name, tensor in request.inputs.items()}
        outputs = tuple(self._engine.signatures[signature].outputs)
        self._engine.check(signature, inputs, outputs)
        answer = predict_pb2.PredictResponse()
        answer.model_spec.CopyFrom(request.model_spec)
        answer.model_spec.version.value = self._version
        for name, array in self._engine.run(signature, inputs, outputs).items():
            answer.outputs[name].CopyFrom(encode_tensor(array, as_content=False))
        return answer


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description="Serve one SavedModel without batching.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=16)
    args = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(args.threads))
    service = UnbatchedService(Engine(str(args.folder), threads=1), int(args.folder.name))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
