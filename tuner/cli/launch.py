"""``tuner launch``: start workers on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import Files, Storage
from tuner.cli.output import emit, line, message, next_steps

if TYPE_CHECKING:
    from tuner.launch.command import WorkerCommand
    from tuner.launch.kubernetes import KubernetesOptions
    from tuner.launch.slurm import SlurmOptions

app = typer.Typer(
    help="""Start workers on a cluster: SLURM, Kubernetes or Ray.

They take trials from the same database as all other workers, and end when the studies are done. The database password is
passed on as the path of a file, TUNER_STORAGE_PASSWORD_FILE, never itself.

\b
Examples:
  tuner launch slurm --study my-study --workers 4 --time 4:00:00 --dry-run
  tuner launch kubernetes --study my-study --image IMAGE --files-claim PVC --dry-run
  tuner launch ray --study my-study --workers 8 --address auto
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Studies = Annotated[
    list[str] | None,
    typer.Option("--study", metavar="NAME", show_default=False, help="serve this study (again for more); else all"),
]
Workers = Annotated[int, typer.Option("--workers", metavar="N", help="workers at once")]
GpusPerWorker = Annotated[int, typer.Option("--gpus-per-worker", metavar="N", help="0 trains on the CPU")]
PerDevice = Annotated[int, typer.Option("--per-device", metavar="N", help="trials at once on each device")]

# SLURM
Time = Annotated[
    str, typer.Option("--time", metavar="LIMIT", help="of a job, as sbatch writes it; requeued until done")
]
SlurmCpus = Annotated[
    int | None, typer.Option("--cpus-per-worker", metavar="N", show_default=False, help="CPU cores of a worker")
]
SlurmMemory = Annotated[
    float | None, typer.Option("--memory", metavar="GIB", show_default=False, help="memory of a worker")
]
Partition = Annotated[
    str | None, typer.Option("--partition", metavar="NAME", show_default=False, help="else the default one")
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="KEY=VALUE", show_default=False, help="another #SBATCH line, as account=NAME"),
]
Setup = Annotated[
    list[str] | None,
    typer.Option("--setup", metavar="LINE", show_default=False, help="shell before the start, as 'module load cuda'"),
]
NoticeTime = Annotated[int, typer.Option("--notice", metavar="SECONDS", help="before the limit, to save and leave")]
Requeues = Annotated[int, typer.Option("--requeues", metavar="N", help="a job's time may run out this often")]
JobName = Annotated[str, typer.Option("--name", metavar="NAME", help="the job's name")]
LogFolder = Annotated[
    Path | None,
    typer.Option("--log-folder", metavar="DIR", show_default=False, help="else slurm/ in the folder for files"),
]
Here = Annotated[bool, typer.Option("--local", help="run the jobs here, without SLURM, to try them out")]
DryScript = Annotated[bool, typer.Option("--dry-run", help="print the script and submit nothing")]

# Kubernetes
Image = Annotated[str, typer.Option("--image", metavar="IMAGE", help="the workers' image")]
Claim = Annotated[
    str, typer.Option("--files-claim", metavar="PVC", help="claim for checkpoints and caches, mounted at /files")
]
Secret = Annotated[
    str | None,
    typer.Option("--storage-secret", metavar="NAME", show_default=False, help="Secret with the database password"),
]
SecretKey = Annotated[str, typer.Option("--secret-key", metavar="KEY", help="of the password in it")]
PodGpus = Annotated[int, typer.Option("--gpus", metavar="N", help="of each worker; 0 trains on the CPU")]
GpuResource = Annotated[str, typer.Option("--gpu-resource", metavar="NAME", help="what the cluster calls a GPU")]
PodCpu = Annotated[str, typer.Option("--cpu", metavar="QUANTITY", help="CPU cores of each worker")]
PodMemory = Annotated[str, typer.Option("--memory", metavar="QUANTITY", help="memory of each worker")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", show_default=False, help="else kubectl's current one")
]
NodeSelector = Annotated[
    list[str] | None,
    typer.Option("--node-selector", metavar="KEY=VALUE", show_default=False, help="only nodes with this label"),
]
Toleration = Annotated[
    list[str] | None,
    typer.Option("--toleration", metavar="KEY[=VALUE][:EFFECT]", show_default=False, help="also nodes tainted so"),
]
KubernetesName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", show_default=False, help="of the Job; else tuner-STUDY")
]
DryManifests = Annotated[bool, typer.Option("--dry-run", help="print the manifests and apply nothing")]

# Ray
Address = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT", help="of the cluster; auto on one of its nodes")
]
RayCpus = Annotated[int, typer.Option("--cpus-per-worker", metavar="N", help="CPU cores of a worker")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="also on a cluster where anybody in its network may run code")
]
DryPlan = Annotated[bool, typer.Option("--dry-run", help="print the plan as JSON and start nothing")]


@app.command(short_help="Start workers as SLURM jobs.")
def slurm(
    *,
    study: Studies = None,
    workers: Workers = 1,
    time: Time = "4:00:00",
    gpus: GpusPerWorker = 1,
    cpus: SlurmCpus = None,
    memory: SlurmMemory = None,
    partition: Partition = None,
    sbatch: Sbatch = None,
    setup: Setup = None,
    per_device: PerDevice = 1,
    notice: NoticeTime = 120,
    requeues: Requeues = 100,
    name: JobName = "tuner",
    log_folder: LogFolder = None,
    here: Here = False,
    dry_run: DryScript = False,
    files: Files = None,
    storage: Storage = None,
) -> None:
    """Start workers as SLURM jobs: an array, one job for each worker.

    Before its time is over, or when somebody else needs the node, a worker saves and gives its trials back; its job goes into
    the queue again until the studies are done. All nodes must reach the database, the folder for files and this installation.

    \b
    Examples:
      tuner launch slurm --study my-study --workers 8 --time 4:00:00 --partition gpu
      tuner launch slurm --study my-study --sbatch account=vision --dry-run
      tuner launch slurm --study my-study --gpus-per-worker 0 --local
    """
    from tuner.launch import slurm as launcher
    from tuner.launch.command import absolute, command_for
    from tuner.store import location

    url = location.storage_url(storage)
    folder = absolute(location.files_dir(files, url))
    options = launcher.SlurmOptions(
        workers=workers,
        minutes=launcher.parse_minutes(time),
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        partition=partition,
        name=name,
        log_folder=Path(absolute(log_folder or Path(folder, "slurm"))),
        notice=notice,
        requeues=requeues,
        setup=tuple(setup or ()),
        sbatch=_pairs("--sbatch", sbatch),
    )
    command = command_for(url, files=folder, studies=study or (), gpus=gpus, per_device=per_device, alone=here)
    if dry_run:
        line(launcher.script(options).rstrip())
        message(f"each job runs: {_spelled(command)}")
    else:
        _find_studies(url, command)
        (_run_here if here else _submit)(command, options, storage)


def _submit(command: WorkerCommand, options: SlurmOptions, storage: str | None) -> None:
    from tuner.launch import slurm as launcher

    numbers = launcher.names(launcher.submit(command, options=options))
    some = f"{options.workers} worker{'s' if options.workers != 1 else ''}"
    message(f"submitted job {numbers}: {some} (squeue --job {numbers}, scancel {numbers})")
    message(f"logs are in {options.log_folder}")
    next_steps("tuner worker list", *(f"tuner study watch {one}" for one in command.studies[:1]), storage=storage)


def _run_here(command: WorkerCommand, options: SlurmOptions, storage: str | None) -> None:
    from tuner.errors import TunerError
    from tuner.launch import slurm as launcher

    message(f"running {options.workers} of the jobs here; logs are in {options.log_folder}")
    jobs = launcher.run_here(command, options=options)
    try:
        for job in jobs:
            failure = job.exception()
            if failure is not None:
                raise TunerError(
                    f"job {job.job_id} failed", why=launcher.last_words(job), fix=f"see {job.paths.stdout}"
                )
            message(f"job {job.job_id}: {job.result()}")
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()
    next_steps(*(f"tuner study show {one}" for one in command.studies[:1]), storage=storage)


@app.command(short_help="Start workers as a Kubernetes Job.")
def kubernetes(
    *,
    image: Image,
    files_claim: Claim,
    storage_secret: Secret = None,
    secret_key: SecretKey = "password",  # noqa: S107 - the name of a key
    study: Studies = None,
    workers: Workers = 1,
    gpus: PodGpus = 1,
    gpu_resource: GpuResource = "nvidia.com/gpu",
    cpu: PodCpu = "4",
    memory: PodMemory = "16Gi",
    namespace: Namespace = None,
    node_selector: NodeSelector = None,
    toleration: Toleration = None,
    per_device: PerDevice = 1,
    name: KubernetesName = None,
    dry_run: DryManifests = False,
    storage: Storage = None,
) -> None:
    """Start workers as a Kubernetes Job: pods that pull trials until the studies are done.

    Applies or prints a ConfigMap and a Job; they name the Secret and never hold it. An evicted worker saves and gives its
    trials back, and the Job starts another one.

    \b
    Examples:
      tuner launch kubernetes --study my-study --workers 8 --image registry/tuner:0.1.0 \\
        --storage-secret tuner-database --files-claim tuner-files --dry-run
    """
    from tuner.launch import kubernetes as launcher
    from tuner.launch.command import command_for
    from tuner.store import location

    url = location.storage_url(storage)
    command = command_for(url, files=launcher.FILES, studies=study or (), gpus=gpus, per_device=per_device)
    options = launcher.KubernetesOptions(
        name=name or launcher.default_name(command.studies),
        image=image,
        storage_secret=storage_secret,
        secret_key=secret_key,
        files_claim=files_claim,
        namespace=namespace,
        workers=workers,
        gpus=gpus,
        gpu_resource=gpu_resource,
        cpu=cpu,
        memory=memory,
        node_selector=_pairs("--node-selector", node_selector),
        tolerations=tuple(toleration or ()),
    )
    text = launcher.to_yaml(launcher.manifests(command, options=options))
    if dry_run:
        line(text.rstrip())
    else:
        _apply(text, options)


def _apply(text: str, options: KubernetesOptions) -> None:
    from tuner.launch import kubernetes as launcher

    said = launcher.apply(text)
    message(said)
    place = f" --namespace {options.namespace}" if options.namespace else ""
    if f"job.batch/{options.name} unchanged" in said:
        message("the Job was there already and nothing was started: delete it first, or give another --name")
        next_steps(f"kubectl delete job {options.name}{place}")
        return
    next_steps(
        f"kubectl get pods --selector app.kubernetes.io/instance={options.name}{place}",
        f"kubectl logs --follow job/{options.name}{place}",
    )


@app.command(short_help="Run workers on a Ray cluster.")
def ray(
    *,
    address: Address = "auto",
    study: Studies = None,
    workers: Workers = 1,
    gpus: GpusPerWorker = 1,
    cpus: RayCpus = 1,
    per_device: PerDevice = 1,
    insecure: Insecure = False,
    dry_run: DryPlan = False,
    files: Files = None,
    storage: Storage = None,
) -> None:
    """Run workers as actors of an existing Ray cluster, and wait for them.

    Ray finds a place for each worker, and another one when a node dies. The first Ctrl-C drains them all. The cluster must ask
    for a token. tuner, the folder for files and the file with the password must be on all nodes.

    \b
    Examples:
      tuner launch ray --study my-study --workers 8
      tuner launch ray --study my-study --workers 8 --address head:6379 --dry-run
    """
    from tuner.launch import ray as launcher
    from tuner.launch.command import absolute, command_for
    from tuner.store import location

    url = location.storage_url(storage)
    options = launcher.RayOptions(address=address, workers=workers, gpus=gpus, cpus=cpus, insecure=insecure)
    folder = absolute(location.files_dir(files, url))
    command = command_for(url, files=folder, studies=study or (), gpus=gpus, per_device=per_device)
    if dry_run:
        emit(launcher.plan(command, options=options))
        return
    status = launcher.run(command, options=options, say=message)
    next_steps(*(f"tuner study show {one}" for one in command.studies[:1]), storage=storage)
    raise typer.Exit(status)


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    from tuner.errors import UsageError

    for text in texts or ():
        if not text.partition("=")[0] or "=" not in text:
            raise UsageError(f'{option}: KEY=VALUE expected, got "{text}"')
    return dict(text.split("=", 1) for text in texts or ())


def _spelled(command: WorkerCommand) -> str:
    import shlex

    named = " ".join(f"{name}={shlex.quote(value)}" for name, value in command.environment.items())
    return f"{named} tuner {shlex.join(command.words)}"


def _find_studies(url: str, command: WorkerCommand) -> None:
    """A wrong name is better found now than after a night in the queue."""
    from tuner.errors import UnavailableError
    from tuner.store import studies
    from tuner.store.database import Database

    try:
        with Database.open(url) as database:
            for name in command.studies:
                studies.find_study(database, name)
    except UnavailableError as error:
        message(f"warning: the studies are not checked: {error}")
