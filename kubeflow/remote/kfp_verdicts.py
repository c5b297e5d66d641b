"""What the tasks of a run on Kubeflow tell of themselves, by way of its user interface.

ML Metadata keeps output parameters; of failed tasks, their pods do (frontend/src/mlmd/MlmdUtils.ts and
frontend/server/app.ts in github.com/kubeflow/pipelines).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto import metadata_store_service_pb2 as service

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.remote.attempts import read
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess
from mnist_tfx.kubeflow.remote.platform import RunState, Told
from mnist_tfx.kubeflow.verdict import PARAMETER, TaskVerdict


def verdicts(access: KubeflowAccess, run_id: str, state: RunState) -> Mapping[str, Told]:
    """By task; an installation that shows less than ours asks for tells nothing."""
    try:
        executions = read(lambda: _executions(access, run_id))
    except PipelineError:
        return {}
    found = {}
    for execution in executions:
        kept = execution.custom_properties
        name = kept["task_name"].string_value or kept["display_name"].string_value
        task = next((task for task in state.tasks if plain(task) == plain(name)), None)
        if task is None:
            continue
        outputs = kept["outputs"].struct_value
        verdict = TaskVerdict.from_text(outputs[PARAMETER]) if PARAMETER in outputs else None
        pod = kept["pod_name"].string_value
        where = urlencode({"podname": pod, "podnamespace": kept["namespace"].string_value})
        if verdict is None and pod and state.tasks[task].phase == "failed":
            verdict = TaskVerdict.from_text(_termination_message(access, where))
        found[task] = Told(verdict, f"{access.interface}/k8s/pod/logs?{where}" if pod else "")
    return found


def plain(name: str) -> str:
    """A task's name without what differs between the pipeline and Kubernetes: case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _executions(access: KubeflowAccess, run_id: str) -> list[metadata_store_pb2.Execution]:
    """What ML Metadata keeps of a run's tasks."""
    context = service.GetContextByTypeAndNameResponse()
    wanted = service.GetContextByTypeAndNameRequest(type_name="system.PipelineRun", context_name=run_id)
    _ask_metadata(access, "GetContextByTypeAndName", wanted, context)
    executions = service.GetExecutionsByContextResponse()
    of_run = service.GetExecutionsByContextRequest(context_id=context.context.id)
    _ask_metadata(access, "GetExecutionsByContext", of_run, executions)
    return list(executions.executions)


def _termination_message(access: KubeflowAccess, where: str) -> str:
    """What a pod's container said when it ended; empty where the pod is gone."""
    try:
        statuses = json.loads(access.ask_interface(f"/k8s/pod?{where}"))["status"]["containerStatuses"]
    except (PipelineError, ValueError, KeyError, TypeError):
        return ""
    ended = [status.get("state", {}).get("terminated") or {} for status in statuses]
    return next((each["message"] for each in ended if each.get("message")), "")


def _ask_metadata(access: KubeflowAccess, method: str, request: Message, answer: Message) -> None:
    """One call of ML Metadata's service in gRPC-Web.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md: frames of a byte, four of length, and content.
    """
    content = request.SerializeToString()
    body = access.ask_interface(
        f"/ml_metadata.MetadataStoreService/{method}",
        b"\0" + len(content).to_bytes(4, "big") + content,
        {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"},
    )
    if len(body) < 5 or body[0]:  # the first frame is one of trailers, which tell of an error
        raise PipelineError(f"ML Metadata refused {method}: {body[5:].decode(errors='replace').strip()}")
    answer.ParseFromString(body[5 : 5 + int.from_bytes(body[1:5], "big")])
