"""What Faust finds under the URL scheme `redis-streams://`."""

# mypy: disallow-subclassing-any=False
# (faust carries no types that mypy may follow)

from __future__ import annotations

from importlib.metadata import version

from faust.transport.base import Transport as BaseTransport

from streams.transport.conductor import Conductor
from streams.transport.consumer import Consumer
from streams.transport.producer import Producer


class Transport(BaseTransport):
    """Our consumer, producer and conductor; made at import time, so it touches no event loop."""

    Consumer = Consumer
    Producer = Producer
    Conductor = Conductor
    driver_version = f"redis-streams (redis={version('redis')})"
