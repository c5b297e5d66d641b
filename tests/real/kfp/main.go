// Command kfp runs parts of Kubeflow Pipelines' own backend on a compiled pipeline. See test_kfp.py beside it.
//
//	kfp compile PIPELINE_JOB.json SPEC.json  its Argo compiler, with a platform spec: prints the workflow
//	kfp paths URI...                         its launcher's local path of each URI
//	kfp run REQUEST.json                     its driver and launcher, one task after the other; see request
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/v2/client_manager"
	"github.com/kubeflow/pipelines/backend/src/v2/common/plugins"
	"github.com/kubeflow/pipelines/backend/src/v2/compiler"
	"github.com/kubeflow/pipelines/backend/src/v2/compiler/argocompiler"
	"github.com/kubeflow/pipelines/backend/src/v2/component"
	"github.com/kubeflow/pipelines/backend/src/v2/driver"
	"github.com/kubeflow/pipelines/backend/src/v2/metadata"
	"github.com/kubeflow/pipelines/kubernetes_platform/go/kubernetesplatform"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/kubernetes/fake"
)

// request is what `run` is asked for.
type request struct {
	Job          string   // file of the pipeline job
	Platform     string   // file of the platform spec
	Root         string   // where artifacts go
	Run          string   // the run's id
	MetadataPort string   // of ML Metadata on this machine
	Tasks        []string // in the order in which they run
	Pods         string   // folder that gets a folder for each task, in which its pod's files are
	PlanOnly     bool     // do not launch the tasks, whose pods' patches are printed
}

func main() {
	proxy.InitializeConfigWithEnv() // as the API server and the driver do when they start
	if err := run(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, verb string, args []string) error {
	switch verb {
	case "compile":
		job, err := readJob(args[0])
		if err != nil {
			return err
		}
		platform, err := readPlatform(args[1])
		if err != nil {
			return err
		}
		workflow, err := argocompiler.Compile(job, platform, &argocompiler.Options{})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(workflow)
	case "paths":
		paths := []string{}
		for _, uri := range args {
			path, err := component.LocalPathForURI(uri)
			if err != nil {
				return err
			}
			paths = append(paths, path)
		}
		return json.NewEncoder(os.Stdout).Encode(paths)
	case "run":
		content, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		wanted := request{}
		if err := json.Unmarshal(content, &wanted); err != nil {
			return err
		}
		return runTasks(ctx, wanted)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

func readJob(file string) (*pipelinespec.PipelineJob, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	job := &pipelinespec.PipelineJob{}
	return job, protojson.Unmarshal(content, job)
}

// readPlatform reads what the API server picks out of a package's second document (template/v2_template.go).
func readPlatform(file string) (*pipelinespec.SinglePlatformSpec, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	spec := &pipelinespec.PlatformSpec{}
	if err := protojson.Unmarshal(content, spec); err != nil {
		return nil, err
	}
	return spec.GetPlatforms()["kubernetes"], nil
}

func runTasks(ctx context.Context, wanted request) error {
	job, err := readJob(wanted.Job)
	if err != nil {
		return err
	}
	spec, err := compiler.GetPipelineSpec(job)
	if err != nil {
		return err
	}
	deployment, err := compiler.GetDeploymentConfig(spec)
	if err != nil {
		return err
	}
	platform, err := readPlatform(wanted.Platform)
	if err != nil {
		return err
	}
	mlmd, err := metadata.NewClient("127.0.0.1", wanted.MetadataPort, nil)
	if err != nil {
		return err
	}
	// What driver.RootDAG does, but for asking Kubernetes where artifacts go.
	name := spec.GetPipelineInfo().GetName()
	pipeline, err := mlmd.GetPipeline(ctx, name, wanted.Run, "kubeflow", "run-resource", wanted.Root, "")
	if err != nil {
		return err
	}
	dag, err := mlmd.CreateExecution(ctx, pipeline, &metadata.ExecutionConfig{
		ExecutionType: metadata.DagExecutionTypeName, Name: "run/" + wanted.Run,
	})
	if err != nil {
		return err
	}
	for _, task := range wanted.Tasks {
		component := spec.GetComponents()[task]
		container := deployment.GetExecutors()[component.GetExecutorLabel()].GetContainer()
		config := &kubernetesplatform.KubernetesExecutorConfig{}
		if told := platform.GetDeploymentSpec().GetExecutors()[component.GetExecutorLabel()]; told != nil {
			content, err := told.MarshalJSON()
			if err != nil {
				return err
			}
			if err := protojson.Unmarshal(content, config); err != nil {
				return err
			}
		}
		policy := spec.GetRoot().GetDag().GetTasks()[task].GetRetryPolicy()
		options := driver.Options{
			PipelineName: name, RunID: wanted.Run, RunName: wanted.Run, RunDisplayName: wanted.Run, Namespace: "kubeflow",
			Component: component, IterationIndex: -1, Task: spec.GetRoot().GetDag().GetTasks()[task], TaskName: task,
			DAGExecutionID: dag.GetID(), Container: container, CacheDisabled: true, PublishLogs: "false",
			PluginDispatcher: plugins.NoOpDispatcher{}, KubernetesExecutorConfig: config,
		}
		planned, err := driver.Container(ctx, options, mlmd, nil)
		if err != nil {
			return err
		}
		fmt.Printf("pod spec patch of %s: %s\n", task, planned.PodSpecPatch)
		if wanted.PlanOnly {
			continue
		}
		for tries := int32(0); ; tries++ { // Argo hands each try the same input
			fmt.Printf("try %d of %s\n", tries, task)
			given := proto.Clone(planned.ExecutorInput).(*pipelinespec.ExecutorInput)
			err := launch(ctx, wanted, mlmd, task, component, container, planned.ID, given)
			if err == nil {
				break
			}
			if tries >= policy.GetMaxRetryCount() {
				return fmt.Errorf("%s: %w", task, err)
			}
		}
	}
	return nil
}

// launch runs the launcher as it runs in a task's pod, whose files are in a folder of their own.
func launch(
	ctx context.Context, wanted request, mlmd *metadata.Client, task string, spec *pipelinespec.ComponentSpec,
	container *pipelinespec.PipelineDeploymentConfig_PipelineContainerSpec, id int64, given *pipelinespec.ExecutorInput,
) error {
	pod := filepath.Join(wanted.Pods, task)
	if err := os.RemoveAll(pod); err != nil {
		return err
	}
	for _, variable := range container.GetEnv() {
		os.Setenv(variable.GetName(), variable.GetValue())
		defer os.Unsetenv(variable.GetName())
	}
	for _, artifacts := range []map[string]*pipelinespec.ArtifactList{given.Inputs.Artifacts, given.Outputs.Artifacts} {
		for _, list := range artifacts {
			for _, artifact := range list.Artifacts {
				path, err := component.LocalPathForURI(artifact.Uri)
				if err != nil {
					return err
				}
				path = filepath.Join(pod, path)
				artifact.CustomPath = &path
			}
		}
	}
	given.Outputs.OutputFile = filepath.Join(pod, given.Outputs.OutputFile)
	for _, parameter := range given.Outputs.Parameters {
		parameter.OutputFile = filepath.Join(pod, parameter.OutputFile)
	}
	termination := filepath.Join(pod, "dev", "termination-log")
	if err := os.MkdirAll(filepath.Dir(termination), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(termination, nil, 0o644); err != nil {
		return err
	}
	os.Setenv("MNIST_TFX_POD_ROOT", pod)
	os.Setenv("KFP_POD_NAME", "pod-of-"+task)
	input, err := protojson.Marshal(given)
	if err != nil {
		return err
	}
	fmt.Printf("executor input of %s: %s\n", task, input)
	declared, err := protojson.Marshal(spec)
	if err != nil {
		return err
	}
	options := &component.LauncherV2Options{
		Namespace: "kubeflow", PodName: "pod-of-" + task, PodUID: "uid", MLMDServerAddress: "127.0.0.1",
		MLMDServerPort: wanted.MetadataPort, PipelineName: wanted.Run, RunID: wanted.Run, PublishLogs: "false",
		CacheDisabled: true,
	}
	command := append(append([]string{}, container.Command...), container.Args...)
	clients := client_manager.NewFakeClientManager(fake.NewClientset(), mlmd, nil)
	launcher, err := component.NewLauncherV2(ctx, id, string(input), string(declared), command, options, clients)
	if err != nil {
		return err
	}
	return launcher.Execute(ctx)
}
