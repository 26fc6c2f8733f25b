"""Services that run in this process, on free ports, as `gindex serve` runs them."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs gradient-index[serve]")
httpx = pytest.importorskip("httpx2", reason="needs gradient-index[client]")

from gindex.serve.app import make_app  # noqa: E402
from gindex.serve.config import ServeConfig  # noqa: E402
from gindex.serve.http_server import HttpServer, bind  # noqa: E402
from gindex.serve.indexes import index_locations  # noqa: E402
from gindex.serve.keys import Keys  # noqa: E402
from gindex.serve.service import Service  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Running:
    """A service that runs: its address, itself, and a plain HTTP client."""

    def __init__(self, service: Service, server: HttpServer, port: int) -> None:
        self.service, self.server, self.port = service, server, port
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=300)

    def search(self, body: dict[str, Any], name: str = "index", **more: Any) -> Any:
        return self.http.post(f"/v1/indexes/{name}/search", json=body, **more)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start a service over folders and wait until it is ready; all end with the session."""
    running = []

    def start(
        *indexes: object,
        models: list[str] | None = None,
        keys: str | None = None,
        writable: bool = False,
        prompts: bool = True,
        **settings: Any,
    ):
        config = ServeConfig(port=0, device="cpu", **{"reload_seconds": 0.2} | settings)
        read = None
        if keys is not None:
            path = tmp_path_factory.mktemp("keys") / "keys.txt"
            path.write_text(keys)
            read = Keys.read(path)
        places = index_locations([str(index) for index in indexes], models or ())
        service = Service(places, config, keys=read, writable=writable, prompts=prompts)
        listening = bind(config)
        server = HttpServer(service, make_app(service))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        found = Running(service, server, listening.getsockname()[1])
        running.append((found, thread))
        wait_for(lambda: service.ready)
        return found

    yield start
    for found, thread in running:
        found.server.should_exit = True
        found.http.close()
        thread.join(60)


def wait_for(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until something holds; see `wait_for`."""
    return wait_for


@pytest.fixture(scope="session")
def served(start: Callable[..., Running], built: Path) -> Running:
    """The small index, read-only."""
    return start(f"index={built}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; not for the session, since it keeps an event loop in this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, running: Running) -> Iterator[Any]:
    """A page of the module's service, which must load nothing from elsewhere and fail in no script."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((running.url, "data:")) else problems.append(r.url))
    page.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert not problems


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the small index, to change."""
    return Path(shutil.copytree(built, tmp_path / "index"))
