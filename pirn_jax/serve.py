"""`python -m pirn_jax.serve RUN|FILE`: judge parts over HTTP, with a page to look at them.

FILE is what `python -m pirn_jax.export` wrote; it is judged by `pirn_runtime`, and JAX is not
imported.

http://127.0.0.1:8000/ is the page, /docs describes the interface, /metrics is for Prometheus. Parts
come by `POST /v1/judge`, or from a folder (--watch); records go to a folder, a web address and an
MQTT topic (--to-folder, --webhook, --mqtt), each tried again until it takes them. What was accepted
is never lost: it lies in --state, and is judged and delivered after a crash.

Other machines are answered only with a key (--key-file); encrypt the way to them with a proxy.

Exit codes are those of every command (`pirn_jax.command`); told to end by SIGTERM it judges what
waits, and ends with 0.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pirn_jax.command import Console, exits, parse
from pirn_jax.errors import ConfigError, MachineError, MissingDependencyError, check_name
from pirn_jax.places import address, is_remote
from pirn_jax.scans.formats.options import Reading

if TYPE_CHECKING:
    from pirn_jax.deploy.service.judge import Served
    from pirn_jax.deploy.service.sinks import Sink
    from pirn_jax.detector.judging import Judging


@dataclass(frozen=True)
class Arguments(Reading):
    """Judge parts over HTTP with trained models, and show them on a page."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, the model/ folder of one model, or an exported file."""
    host: str = "127.0.0.1"
    """Where it listens; others than this machine's own need --key-file."""
    port: int = 8000
    """On which."""
    key_file: Path | None = None
    """File of keys, one a line; each request then needs one, as header X-API-Key."""
    state: Path = Path("service")
    """Folder of the log, and of the newest parts with their pictures; one process at a time."""
    keep: int = 500
    """Newest parts whose files and pictures are kept; marked ones always are, verdicts too."""
    category: str | None = None
    """Which model, where a run holds several; without it all of them are served."""
    seed: int | None = None
    """Which seed's model; without it the first."""
    weights: str | None = None
    """The encoder's file, where it has moved."""
    runtime: str | None = None
    """What the encoder runs on: jax, or openvino (faster on a CPU); without it as in training. What
    an exported file runs on: openvino, or without it onnxruntime."""
    rules: Path | None = None
    """TOML file of what is not OK: thresholds, sizes in mm, severities, zones."""
    roi: Path | None = None
    """What is not judged: a picture, white there, or a TOML file of zones."""
    batch: int = 4
    """Most parts a call of the device; changes a score by rounding alone."""
    gather_ms: float = 4.0
    """Milliseconds that a part waits for others to be judged with."""
    queue: int = 64
    """Most parts that wait; further ones are refused with status 429."""
    largest_mib: int = 256
    """Most MiB of one part: of a request, or of its files in a watched folder."""
    watch: Path | None = None
    """Also judge what is laid into this folder; nothing in it is changed."""
    to_folder: Path | None = None
    """Also write each record into this folder."""
    webhook: str | None = None
    """Also send each record to this http or https address."""
    mqtt: str | None = None
    """Also send each record to mqtt://host:port/topic."""
    cache: str | None = None
    """Folder for compiled programs, as in training."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    with exits(arguments) as words:
        given = parse(
            Arguments,
            words,
            prog="python -m pirn_jax.serve",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        serve(given)


def serve(arguments: Arguments) -> None:
    """Do what the flags say, until it is told to end (Ctrl-C, SIGTERM)."""
    try:
        import uvicorn

        from pirn_jax.deploy.service.app import Parts, create_app
        from pirn_jax.deploy.service.batcher import Batcher
        from pirn_jax.deploy.service.guard import check_bind, is_this_machine, read_keys
        from pirn_jax.deploy.service.journal import Journal
        from pirn_jax.deploy.service.measures import Measures
        from pirn_jax.deploy.service.sinks import Courier
        from pirn_jax.deploy.service.watcher import Watcher
    except ImportError as error:
        raise MissingDependencyError(
            f"the service needs {error.name}", "pip install 'pirn-jax[serve]'"
        ) from error
    from pirn_jax.storage import sole_writer

    for name, least in (("batch", 1), ("queue", 1), ("keep", 0), ("largest_mib", 1)):
        if getattr(arguments, name) < least:
            raise ConfigError(f"{name}: expected {least} or more, got {getattr(arguments, name)}")
    keys = () if arguments.key_file is None else read_keys(arguments.key_file)
    check_bind(arguments.host, keys)
    _check_folders(arguments)
    sinks = _sinks(arguments)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    arguments.state.mkdir(parents=True, exist_ok=True)
    with sole_writer(arguments.state, "--state"):
        models = _models(arguments)
        if arguments.watch is not None and len(models) > 1:
            raise ConfigError(
                f"--watch with models {', '.join(models)}", "say which with --category"
            )
        journal, measures = Journal(arguments.state), Measures()
        batcher = Batcher(
            journal,
            models,
            sinks=[sink.name for sink in sinks],
            measures=measures,
            batch=arguments.batch,
            gather=arguments.gather_ms / 1e3,
            capacity=arguments.queue,
            keep=arguments.keep,
        )
        couriers = [Courier(journal, sink) for sink in sinks]
        sources = []
        if arguments.watch is not None:
            name, served = next(iter(models.items()))
            names = {"rgb": "rgb", "normals": "xyz"}
            streams = tuple(names[modality] for modality in served.modalities)
            sources = [
                Watcher(
                    arguments.watch,
                    journal,
                    batcher,
                    model=name,
                    streams=streams,
                    largest=arguments.largest_mib << 20,
                )
            ]
        app = create_app(
            Parts(
                journal,
                batcher,
                models,
                measures,
                keys=keys,
                largest=arguments.largest_mib << 20,
                local=not keys and is_this_machine(arguments.host),
                sources=sources,
                couriers=couriers,
            )
        )
        # uvicorn ends in order, then hands the signal on; without this it would end us at once.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        url = f"http://{arguments.host}:{arguments.port}/"
        console.print(f"serving {', '.join(models)}: {url} (Ctrl-C ends it)", markup=False)
        server = uvicorn.Server(
            uvicorn.Config(
                app, host=arguments.host, port=arguments.port, log_level="warning", lifespan="on"
            )
        )
        try:
            server.run()
        except SystemExit as error:
            if server.started:
                raise
            if server.lifespan.startup_failed:
                raise MachineError(
                    "the service could not start", "the lines above say why"
                ) from error
            raise MachineError(f"cannot listen at {url}", "--port names another") from error
        finally:
            for worker in (*sources, *couriers):  # those that a second Ctrl-C left at work
                worker.stop()
            journal.close()


def _models(arguments: Arguments) -> dict[str, Served]:
    """The models that are served, ready: the first part need not wait."""
    from pirn_jax.detector.judging import read_judging

    judging = read_judging(arguments.rules, arguments.roi, arguments.limits)
    if arguments.run.is_file():
        return _exported(arguments, judging)
    return _trained(arguments, judging)


def _exported(arguments: Arguments, judging: Judging) -> dict[str, Served]:
    """The model of a file."""
    from pirn_jax.deploy.service.exported import Exported
    from pirn_jax.deploy.service.judge import ScanJudge, Served, describe

    for name in ("category", "seed", "weights", "cache"):
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name} with an exported file", "leave it out")
    name = arguments.run.stem
    model = Exported(arguments.run, arguments.runtime or "onnxruntime")
    origin = {"reading": model.description.reading}
    judge = ScanJudge(model, judging, origin, arguments, arguments.batch)
    return {name: Served(name, judge, model.looking.modalities, describe(name, model, judging))}


def _trained(arguments: Arguments, judging: Judging) -> dict[str, Served]:
    """The models of a run, compiled."""
    from pirn_jax.deploy.service.judge import ScanJudge, Served, describe
    from pirn_jax.detector import PIRN
    from pirn_jax.detector.saving import is_model
    from pirn_jax.runs.folder import start_caches, trained_models
    from pirn_jax.runs.predictions import find_model

    _, prepared = start_caches(arguments.cache)
    if is_model(arguments.run):
        names = {arguments.run.resolve().parent.parent.name or "model": arguments.run}
    else:
        known = sorted({place.category for place in trained_models(arguments.run)})
        if arguments.category is not None:
            check_name("category", arguments.category, known)
            known = [arguments.category]
        names = {name: find_model(arguments.run, name, arguments.seed) for name in known}
    found, encoder = {}, None
    for name, place in names.items():
        model = PIRN.load(
            place,
            weights=arguments.weights,
            runtime=arguments.runtime,
            encoder=encoder,
            prepared=prepared,
        )
        encoder = model.encoder
        for size in sorted({1, arguments.batch}):  # one alone goes in a call of its own
            model.compile(size)
        judge = ScanJudge(model, judging, model.origin, arguments, arguments.batch, model.prepared)
        found[name] = Served(name, judge, model.config.modalities, describe(name, model, judging))
    return found


def _check_folders(arguments: Arguments) -> None:
    """Refuse folders that do not work: in a store, or written into what is watched.

    The service would judge its own pictures, without end.

    Raises:
        ConfigError: naming the folder.
    """
    state, sink, watched = arguments.state, arguments.to_folder, arguments.watch
    for flag, folder in {"--state": state, "--to-folder": sink, "--watch": watched}.items():
        if folder is not None and is_remote(folder):
            raise ConfigError(
                f"{flag} {address(folder)}: expected a folder of this machine",
                "name one, and have it copied to or from the store beside the service",
            )
    if watched is None:
        return
    for flag, folder in {"--state": state / "requests", "--to-folder": sink}.items():
        if folder is not None and folder.resolve().is_relative_to(watched.resolve()):
            raise ConfigError(
                f"{flag} lies in --watch {watched}: what is written would be judged again",
                f"name another folder with {flag}",
            )


def _sinks(arguments: Arguments) -> list[Sink]:
    from pirn_jax.deploy.service.sinks import FolderSink, MqttSink, WebhookSink

    found: list[Sink] = []
    if arguments.to_folder is not None:
        found.append(FolderSink(arguments.to_folder))
    if arguments.webhook is not None:
        found.append(WebhookSink(arguments.webhook))
    if arguments.mqtt is not None:
        found.append(MqttSink(arguments.mqtt))
    return found


if __name__ == "__main__":
    sys.exit(main())
