"""A Ray cluster to work with: joined where there is one, started on this machine where there is none."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from probes.foundation.errors import InputError, StageError

HERE = "local"
LOOPBACK = "127.0.0.1"
REACH_S = 5.0
QUIET = logging.ERROR
USAGE = "RAY_USAGE_STATS_ENABLED"
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextlib.contextmanager
def connected(address: str | None = None, n_cpus: int | None = None) -> Iterator[None]:
    """A Ray to work with: the caller's own, or one that is left again afterwards.

    Ray is used as it stands if it is initialised. Otherwise the cluster at `address`, or at
    RAY_ADDRESS, is joined; without either, one is started on this machine, with `n_cpus` CPUs (by
    default as many as the machine XX"""
    try:
        import ray
    except ImportError as error:
        raise InputError('Ray is not installed: pip install "probes[ray]"') from error
    if ray.is_initialized():
        yield
        return
    terminated = _own_handler()
    chosen = address or os.environ.get("RAY_ADDRESS") or HERE
    try:
        if chosen == HERE:
            with _at_home():
                ray.init(
                    HERE,
                    num_cpus=n_cpus,
                    _node_ip_address=LOOPBACK,
                    include_dashboard=False,
                    logging_level=QUIET,
                    log_to_driver=False,
                )
        else:
            _reach(chosen)
            ray.init(chosen, logging_level=QUIET, log_to_driver=False)
    except OSError as error:
        raise InputError(
            f"no Ray cluster at {chosen!r} ({error}). Start one with `ray start --head`, or leave "
            "`address` and RAY_ADDRESS empty for workers on this machine"
        ) from error
    except Exception as error:  # a bare one, where the start takes Ray over 30 s
        if type(error) is not Exception:
            raise
        raise StageError(
            f"Ray did not start: {error} Run the same command again when the machine is less busy"
        ) from error
    try:
        if terminated is not None:
            signal.signal(signal.SIGTERM, terminated)
        yield
    finally:
        ray.shutdown()


def _own_handler() -> Any:
    """What SIGTERM does in this program, which Ray would replace as it starts; None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.getsignal(signal.SIGTERM)


def _reach(address: str) -> None:
    """Raise `OSError` for an address where nobody answers; Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


@contextlib.contextmanager
def _at_home() -> Iterator[None]:
    """Let a Ray that starts here listen on the loopback alone, and report its use to nobody.

    On Linux, Ray takes an address of 127.0.0.1 for one to be replaced by the machine's own, unless
    clusters are switched off, as they are on other systems.
    """
    from ray._private import ray_constants

    before = {name: os.environ.get(name) for name in (USAGE, CLUSTERS)}
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.setdefault(USAGE, "0")
    os.environ[CLUSTERS] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
