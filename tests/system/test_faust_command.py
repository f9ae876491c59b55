"""`faust -A processors.app worker` runs the engine as `orchestrator worker` does; no Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from processors import commands
from processors.agents import AgentHost, simulated_agents
from processors.client import Client
from processors.settings import Addresses
from tests.system.engine import until

ROOT = Path(__file__).parents[2]
STOP_S_MAX = 10.0
DEFINITION = {
    "name": "by-faust",
    "version": "1",
    "agents": {"worker": {}},
    "tasks": [
        {"task_id": "a", "agent_role": "worker"},
        {"task_id": "b", "agent_role": "worker", "depends_on": ["a"]},
    ],
}
ENDED = "SELECT status FROM executions WHERE execution_id = $1 AND completed_at IS NOT NULL"

WITHOUT_KAFKA = """
import sys
import aiokafka
def never(self, *args, **kwargs):
    raise AssertionError(f"a Kafka client was made: {type(self).__name__}")
for kind in (aiokafka.AIOKafkaClient, aiokafka.AIOKafkaConsumer, aiokafka.AIOKafkaProducer):
    kind.__init__ = never
from faust.cli.faust import cli
try:
    cli(prog_name="faust")
finally:
    drivers = [name for name in sys.modules if name.startswith("faust.transport.drivers.")]
    assert not drivers, drivers
"""


async def test_faust_runs_the_whole_engine_and_makes_no_kafka_client(database, redis_url):
    """The card: faust-streaming, no Kafka."""
    addresses = Addresses(database, redis_url)
    worker = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_KAFKA, "-A", "processors.app", "worker", "--without-web"],
        cwd=ROOT,
        env=os.environ | addresses.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        agents = simulated_agents(["worker"], factor=0)
        async with Client(addresses) as client, AgentHost(redis_url, agents, name="agents"):
            created = commands.create_workflow(definition=DEFINITION)
            await client.call(created)
            started = commands.start_execution(created.root)
            await client.call(started)

            async def ended():
                return await client.pool.fetchval(ENDED, started.root)

            assert await until(ended, "the execution's end") == "completed"
        worker.send_signal(signal.SIGTERM)
        said, _ = await asyncio.to_thread(worker.communicate, timeout=STOP_S_MAX)
        assert worker.returncode == 0, said
    finally:
        worker.kill()
        worker.wait()
