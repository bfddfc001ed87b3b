"""Every call counted and timed through OpenTelemetry. A service would export to its collector; this one prints.

pip install opentelemetry-sdk
"""

import asyncio

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from dal import NewMessage, create_data_access

reader = InMemoryMetricReader()
provider = MeterProvider(metric_readers=[reader])


async def main() -> None:
    async with create_data_access("memory://", meter=provider.get_meter("chat-service")) as dal:
        await dal.chats.create("c-1")
        await dal.messages.add_many("c-1", [NewMessage("user", f"message {n}") for n in range(100)])
        await asyncio.gather(*(dal.messages.history("c-1", limit=10) for _ in range(50)))


def points() -> list[HistogramDataPoint]:
    """What was recorded, one point for each combination of attributes."""
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [m for r in data.resource_metrics for scope in r.scope_metrics for m in scope.metrics]
    return [p for m in metrics for p in m.data.data_points if isinstance(p, HistogramDataPoint)]


if __name__ == "__main__":
    asyncio.run(main())
    for point in points():
        print(*(point.attributes or {}).values(), "calls:", point.count, f"longest: {point.max * 1000:.2f} ms")
    provider.shutdown()
