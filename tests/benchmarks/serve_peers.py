"""The servers that ``bench_serve.py`` sets Tunesmith beside, each as its own documentation writes it, on 127.0.0.1.

    python tests/benchmarks/serve_peers.py ray|fastapi|fastapi-async|litserve KIND MODEL PORT THREADS

KIND is ``text`` or ``image``. A text comes as ``{"text": …}``, an image as the body itself. All have the same model, the same
threads of torch, one copy of the model, and answer with the label and its score.
"""

import io
import sys
from typing import Any

HOST = "127.0.0.1"


def pipeline_of(kind: str, model: str, threads: int) -> Any:
    """``transformers.pipeline`` over the model's folder."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    return pipeline({"text": "text-classification", "image": "image-classification"}[kind], model=model, device="cpu")  # type: ignore[call-overload]


def opened(kind: str, given: Any) -> Any:
    """What a pipeline takes: the text, or the image."""
    if kind == "text":
        return given["text"]
    from PIL import Image

    return Image.open(io.BytesIO(given)).convert("RGB")


def ray_serve(kind: str, model: str, port: int, threads: int) -> None:
    """Ray Serve's first example: one deployment with its defaults, the pipeline in ``__call__``."""
    import time

    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment
    class Classifier:
        def __init__(self) -> None:
            self.model = pipeline_of(kind, model, threads)

        async def __call__(self, request: Request) -> Any:
            given = await request.json() if kind == "text" else await request.body()
            return self.model(opened(kind, given))

    ray.init(address="local", include_dashboard=False, _node_ip_address=HOST, log_to_driver=False)
    serve.start(http_options={"host": HOST, "port": port})
    serve.run(Classifier.bind(), route_prefix="/predict")
    while True:
        time.sleep(1)


def fastapi(kind: str, model: str, port: int, threads: int, in_loop: bool = False) -> None:
    """FastAPI and uvicorn; ``in_loop`` runs the pipeline in the event loop, otherwise FastAPI's threads do."""
    import uvicorn
    from fastapi import FastAPI, Request

    app, model_ = FastAPI(), pipeline_of(kind, model, threads)

    if in_loop:

        @app.post("/predict")
        async def predict(request: Request) -> Any:
            given = await request.json() if kind == "text" else await request.body()
            return model_(opened(kind, given))

    elif kind == "text":

        @app.post("/predict")
        def predict_text(given: dict[str, str]) -> Any:
            return model_(given["text"])

    else:
        from fastapi import Body

        @app.post("/predict")
        def predict_image(given: bytes = Body(media_type="image/png")) -> Any:
            return model_(opened(kind, given))

    uvicorn.run(app, host=HOST, port=port, log_level="warning")


def litserve(kind: str, model: str, port: int, threads: int) -> None:
    """LitServe, whose API must be a module's own (its worker is spawned)."""
    assert kind == "text", "LitServe is measured on texts"
    from serve_litserve import serve

    serve(model, port, threads)


def main() -> None:
    """Serve until killed."""
    which, kind, model, port, threads = sys.argv[1:]
    arguments = (kind, model, int(port), int(threads))
    if which == "ray":
        ray_serve(*arguments)
    elif which == "litserve":
        litserve(*arguments)
    else:
        fastapi(*arguments, in_loop=which == "fastapi-async")


if __name__ == "__main__":
    main()
