"""Stores as emulators play them here, each with a bucket `photos`: S3 (moto), Google's (gcp-storage-emulator) and
Azure's (azurite, of npm: the command azurite-blob, or what AZURITE names).

    with STORES["gs"](patch) as base:               # 'gs://photos'; skips with a reason where it is not installed
        system_of(base).pipe_file(f"{base}/a.jpg", data)

Each takes what its library reads from the environment from `patch`, pytest's.
"""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from tests.support.processes import wait_until

ACCOUNT = "devstoreaccount1"  # the emulator's, and its key, which its manual tells everybody
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def system_of(base):
    """A file system of its own, which keeps no listing."""
    import fsspec

    return fsspec.filesystem(base.partition("://")[0], skip_instance_cache=True, use_listings_cache=False)


@contextmanager
def s3(patch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        patch.setenv(name, "us-east-1" if "REGION" in name else "testing")
    system_of("s3://").mkdir("photos")
    yield "s3://photos"
    server.stop()


@contextmanager
def gs(patch):
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="photos")
    server.start()
    http = server._api._httpd
    http.handle_error = lambda *_: None  # else it prints that a reader went away
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{http.server_address[1]}")
    yield "gs://photos"
    server.stop()


@contextmanager
def az(patch):
    pytest.importorskip("adlfs")
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not installed (npm install -g azurite, or AZURITE=/path/of/azurite-blob)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--inMemoryPersistence"]
    words += ["--skipApiVersionCheck", "--disableTelemetry"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with TemporaryDirectory() as folder, subprocess.Popen(words, cwd=folder, **quiet) as server:
        try:
            wait_until(lambda: server.poll() is not None or _answers(port), 60, "azurite to listen")
            assert server.poll() is None, "azurite ended"
            where = f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT}"
            words = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{where};"
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", words)
            system_of("az://").mkdir("photos")
            yield "az://photos"
        finally:
            server.terminate()


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


STORES = {"s3": s3, "gs": gs, "az": az}
