"""`ossicle serve MODEL`: an OpenAI-compatible endpoint and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import DeviceOption, DtypeOption

if TYPE_CHECKING:
    from ossicle.serve.run import Settings

RayAddress = Annotated[str | None, typer.Option("--ray-address", help="A cluster to join; else Ray runs here.")]
MediaDomains = Annotated[
    list[str] | None, typer.Option("--allowed-media-domain", help="Host that audio may be fetched from; repeatable.")
]

app = typer.Typer()


@app.command()
def command(
    model: Annotated[str, typer.Argument(help="A model folder, or a model that ships.")] = "nano",
    host: Annotated[str, typer.Option("--host", help="Address; without an API key only loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    served_name: Annotated[str | None, typer.Option("--served-name", help="What clients call the model.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="Keys, one a line; also OSSICLE_API_KEY, comma-separated.")
    ] = None,
    shared_handles: Annotated[bool, typer.Option("--shared-handles", help="Let all keys share audio handles.")] = False,
    handle_megabytes: Annotated[int, typer.Option("--handle-megabytes", min=0, help="Memory for handles.")] = 1024,
    media_domain: MediaDomains = None,
    media_folder: Annotated[
        Path | None, typer.Option("--allowed-local-media-path", help="Folder that file: audio may be read from.")
    ] = None,
    max_body_megabytes: Annotated[int, typer.Option("--max-body-megabytes", min=1, help="Largest request.")] = 64,
    max_audio_s: Annotated[
        float, typer.Option("--max-audio-s", min=0.1, help="Most seconds of audio in a request.")
    ] = 3600.0,
    max_audios: Annotated[int, typer.Option("--max-audios", min=1, help="Most clips in one request.")] = 16,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 1024,
    deadline_s: Annotated[float, typer.Option("--deadline-s", min=0.1, help="Longest time for an answer.")] = 120.0,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests that may wait; more are answered 429.")] = 64,
    running: Annotated[int, typer.Option("--running", min=1, help="Answers made at the same time.")] = 64,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the page at /.")] = True,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Copies of the model, on Ray Serve.")] = 1,
    ray_address: RayAddress = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Serve a model: OpenAI-compatible endpoint and page.

    Example: ossicle serve nano --port 8000
    """
    from ossicle.serve.keys import Keys, read_keys
    from ossicle.serve.limits import Limits
    from ossicle.serve.run import Settings

    keys = Keys(read_keys(api_key_file), shared=shared_handles)
    where = {"model": model, "host": host, "port": port, "name": served_name, "device": device, "dtype": dtype}
    _serve(
        Settings(
            keys=keys,
            limits=Limits(
                body_bytes=max_body_megabytes << 20,
                audio_s=max_audio_s,
                audios=max_audios,
                max_tokens=max_tokens,
                deadline_s=deadline_s,
                waiting=queue,
                running=running,
                media_domains=tuple(media_domain or ()),
                media_folder=media_folder,
            ),
            handle_bytes=handle_megabytes << 20,
            page=page,
            **where,
        ),
        replicas,
        ray_address,
    )


def _serve(settings: Settings, replicas: int, ray_address: str | None) -> None:
    def tell(line: str) -> None:
        output.note(f"ossicle: {line}")

    if replicas == 1 and ray_address is None:
        from ossicle.serve.run import serve

        serve(settings, tell)
        return
    from ossicle.serve.replicas import serve_replicas

    serve_replicas(settings, replicas, ray_address, tell)
