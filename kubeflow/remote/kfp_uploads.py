"""What a run and a schedule on Kubeflow Pipelines hang on: an experiment, a pipeline, and a version of it."""

from __future__ import annotations

from typing import Any

import kfp_server_api

from mnist_tfx.kubeflow.remote.attempts import make_once
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess, equals
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Job


class KubeflowUploads:
    """Finds each by its name, and makes what is not there; several callers may do so at once."""

    def __init__(self, access: KubeflowAccess) -> None:
        self._access = access

    def find_experiment(self) -> str | None:
        """The id of the profile's experiment, if it is there."""
        name = self._access.profile.experiment
        listed = self._access.list_all(
            "list experiments",
            self._access.api.experiments.experiment_service_list_experiments,
            "experiments",
            filter=equals(name),
            **self._access.in_namespace(),
        )
        return next((one.experiment_id for one in listed if one.display_name == name), None)

    def experiment(self) -> str:
        """Its id."""
        wanted = kfp_server_api.V2beta1Experiment(
            display_name=self._access.profile.experiment, **self._access.in_namespace()
        )

        def make() -> str:
            api = self._access.api.experiments
            return str(
                self._access.ask(
                    "create the experiment", api.experiment_service_create_experiment, wanted
                ).experiment_id
            )

        return self.find_experiment() or make_once(make, self.find_experiment)

    def version(self, job: Job) -> kfp_server_api.V2beta1PipelineVersionReference:
        """A version of the job's pipeline with just this content; it is named by the file's digest."""
        pipeline_id = self._pipeline(job.pipeline)
        name = f"{job.pipeline}-{job.digest}"

        def find() -> str | None:
            listed = self._access.list_all(
                "list pipeline versions",
                self._access.api.pipelines.pipeline_service_list_pipeline_versions,
                "pipeline_versions",
                pipeline_id=pipeline_id,
                filter=equals(name),
            )
            return next((one.pipeline_version_id for one in listed if one.display_name == name), None)

        def make() -> str:
            uploaded = self._access.ask(
                "upload the pipeline version",
                self._access.api.pipeline_uploads.upload_pipeline_version,
                str(job.file),
                name=name,
                pipelineid=pipeline_id,
                description=f"made by {MANAGED_BY} from recipe {job.recipe}",
            )
            return str(uploaded.pipeline_version_id)

        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline_id, pipeline_version_id=find() or make_once(make, find)
        )

    def _pipeline(self, name: str) -> str:
        def find() -> str | None:
            listed = self._access.list_all(
                "list pipelines",
                self._access.api.pipelines.pipeline_service_list_pipelines,
                "pipelines",
                filter=equals(name),
                **self._access.in_namespace(),
            )
            return next((one.pipeline_id for one in listed if one.display_name == name), None)

        def make() -> str:
            wanted: Any = kfp_server_api.V2beta1Pipeline(
                name=name, display_name=name, description=f"made by {MANAGED_BY}", **self._access.in_namespace()
            )
            api = self._access.api.pipelines
            return str(
                self._access.ask("create the pipeline", api.pipeline_service_create_pipeline, wanted).pipeline_id
            )

        return find() or make_once(make, find)
