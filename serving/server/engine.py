"""Computes a SavedModel's signatures.

The TF 1 loader in a Session, with prepared callables: it loads TF 1 and TF 2 SavedModels alike. One image through
784-512-512-10 takes it 185 to 265 us on 2 cores, where a `tf.function` takes 480; 64 images take 650.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.rows import Arrays, check_keys
from mnist_tfx.serving.server.tensors import enum_of, type_name

logger = logging.getLogger(__name__)

_INIT_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")
_IN_THE_CALLERS_THREAD = -1
_MAX_CALLABLES = 256

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Engine:
    """One loaded SavedModel. `run` may be called from many threads at once.

    Operations run in the caller's thread, one after the other: for models of this size, handing each to a pool takes
    longer than computing it. Concurrent calls run side by side.
    """

    def __init__(
        self,
        path: str,
        threads: int = 0,
        session: tf.compat.v1.ConfigProto | None = None,
        tags: Sequence[str] = ("serve",),
    ) -> None:
        """Loads a SavedModel.

        Args:
            path: its folder.
            threads: over how many threads one large operation spreads; 0: all cores. TensorFlow has one pool for this,
                so in a process the first engine's number counts.
            session: settings of the session; they win over ours.
            tags: those of the meta graph to load.

        Raises:
            ServingError: it cannot be loaded.
        """
        if not any(tf.io.gfile.exists(os.path.join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
            )
        self.path = path
        config = tf.compat.v1.ConfigProto(allow_soft_placement=True, intra_op_parallelism_threads=threads)
        config.gpu_options.allow_growth = True  # two versions share a GPU during a swap
        config.MergeFrom(session or tf.compat.v1.ConfigProto())
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, list(tags), path)
        except Exception as error:
            self._session.close()
            raise _load_error(path, tags, error) from error
        self.signatures: Mapping[str, SignatureDef] = {
            name: signature for name, signature in meta_graph.signature_def.items() if name not in _INIT_SIGNATURES
        }
        self._feeds = {
            name: [(key, signature.inputs[key].dtype) for key in sorted(signature.inputs)]
            for name, signature in self.signatures.items()
        }
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = {}
        self._prepare_lock = threading.Lock()
        for name, signature in self.signatures.items():
            try:
                self._prepare(name, tuple(sorted(signature.outputs)))  # the first request would wait for it
            except ServingError as error:
                logger.warning("%s: %s", path, error)

    def check(self, signature_name: str, inputs: Arrays, outputs: Sequence[str]) -> None:
        """Checks names and types against the signature; shapes are the kernels' matter. Raises ServingError."""
        feeds = self._feeds.get(signature_name)
        if feeds is None:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.'
            )
        known_outputs = self.signatures[signature_name].outputs
        for output in outputs:
            if output not in known_outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {output} Outputs expected to be in the set "
                    f"{{{','.join(sorted(known_outputs))}}}."
                )
        check_keys(inputs, self.signatures[signature_name].inputs)
        for position, (key, expected) in enumerate(feeds):
            try:
                given = enum_of(inputs[key].dtype)
            except ValueError as error:
                raise invalid(f"{key}: {error}") from None
            if given != expected:
                raise invalid(f"Expects arg[{position}] to be {type_name(expected)} but {type_name(given)} is provided")

    def run(self, signature_name: str, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Computes `outputs` of a signature, each by its name there; strings are arrays of bytes objects.

        The inputs must have passed `check`. Raises ServingError with the kernel's own status and words.
        """
        names = tuple(sorted(outputs))
        call = self._callables.get((signature_name, names)) or self._prepare(signature_name, names)
        try:
            values = call(*[inputs[key] for key, _ in self._feeds[signature_name]])
        except tf.errors.OpError as error:
            raise _op_error(error) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise invalid(str(error)) from error
        computed = dict(zip(names, values, strict=True))
        return {name: computed[name] for name in outputs}

    def close(self) -> None:
        """Frees the model's memory. No call may be running."""
        self._callables.clear()
        self._session.close()

    def _prepare(self, signature_name: str, outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        signature = self.signatures[signature_name]
        options = CallableOptions()
        options.feed.extend(signature.inputs[key].name for key, _ in self._feeds[signature_name])
        options.fetch.extend(signature.outputs[key].name for key in outputs)
        options.run_options.inter_op_thread_pool = _IN_THE_CALLERS_THREAD
        with self._prepare_lock:
            if len(self._callables) >= _MAX_CALLABLES:  # a client can ask for any subset of the outputs
                self._callables.clear()
            try:
                call = self._session._make_callable_from_options(options)
            except (tf.errors.OpError, ValueError, RuntimeError) as error:
                raise ServingError(
                    grpc.StatusCode.FAILED_PRECONDITION, f"signature {signature_name!r} cannot be prepared: {error}"
                ) from error
            self._callables[signature_name, outputs] = call
        return call


def _load_error(path: str, tags: Sequence[str], error: Exception) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return _op_error(error)
    if isinstance(error, RuntimeError) and "MetaGraphDef" in str(error):
        return ServingError(
            grpc.StatusCode.NOT_FOUND,
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To inspect available "
            f"tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli show --dir {path}`",
        )
    return ServingError(grpc.StatusCode.INTERNAL, f"{path} cannot be loaded: {error}")


def _op_error(error: tf.errors.OpError) -> ServingError:
    return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
