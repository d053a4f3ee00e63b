"""Prefect's server for one command: it starts while the library loads, and ends when the command does, however."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

from dn2.errors import Dn2Error

_STARTUP, _SHUTDOWN = 120, 10  # seconds; the first start on a machine makes the database


class ServerError(Dn2Error, RuntimeError):
    """Prefect's server did not start."""


class Server:
    """The server that the flows of this process report to: the one that the user configured, or one of our own.

    Prefect would start one by itself, but later than need be, in the same terminal (so that Ctrl-C ends it before the
    run can be reported as stopped), and it would outlive a command that is killed. This one ends when the pipe closes
    that this process holds, which happens however the process ends, and last of all.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._settings = ExitStack()

    def start(self) -> None:
        """Start the server unless there is one, and return at once."""
        from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

        if PREFECT_API_URL.value():
            return
        with socket.socket() as listener:  # whoever connects from now on is answered as soon as the server is up
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(  # noqa: S603  (this interpreter and this module)
                [sys.executable, "-P", "-m", "flows.cli.server", str(listener.fileno())],
                env={**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)},
                pass_fds=[listener.fileno()],
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=None if self._verbose else subprocess.DEVNULL,
            )
        self._settings.enter_context(temporary_settings({PREFECT_API_URL: self._url}))
        for name in ("no_proxy", "NO_PROXY"):  # the way to this machine leads through no proxy
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            ServerError: it does not.
        """
        import httpx

        if self._process is None:
            return
        try:
            httpx.get(f"{self._url}/health", timeout=_STARTUP, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            from prefect.settings import PREFECT_HOME

            raise ServerError(
                f"Prefect's server did not start ({type(error).__name__}): its database lies in "
                f"{PREFECT_HOME.value()}; make that writable or set PREFECT_HOME to another folder; --verbose shows why"
            ) from error


def serve(listener: socket.socket) -> None:
    """Serve on a listening socket until standard input closes: then the command that started this has ended."""
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))

    def watch() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(_SHUTDOWN)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
