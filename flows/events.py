"""What dn2 tells Prefect's event feed: a drop is ready, a batch is scored, has anomalies, has drifted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from prefect import get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.runtime import flow_run

from dn2.records import AnyReport, Drop, SeenDrop
from flows.links import served
from flows.parameters import TellConfig

DROP_READY, BATCH_SCORED, BATCH_ANOMALOUS = "dn2.drop.ready", "dn2.batch.scored", "dn2.batch.anomalous"
BATCH_DRIFTED = "dn2.batch.drifted"


def emit(event: str, resource: dict[str, str], payload: dict[str, Any], *, key: str) -> None:
    """Hand an event to Prefect's server; return when the server has taken it.

    Args:
        event: its name.
        resource: what it is about: labels that automations can match.
        payload: what happened.
        key: names the event: the server keeps one of each.

    Raises:
        httpx.HTTPError: the server did not take it.
    """
    related = []
    if flow_run.id:
        labels = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}
        related.append(RelatedResource(labels | {"prefect.resource.name": str(flow_run.name)}))
    body = Event(
        id=uuid5(NAMESPACE_URL, f"dn2:{event}:{key}"),
        occurred=datetime.now(UTC),
        event=event,
        resource=Resource(resource),
        related=related,
        payload=payload,
    )
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[body.model_dump(mode="json")])


def tell_drop(drop: Drop, seen: SeenDrop, store: str, settings: dict[str, Any]) -> None:
    """Emit `dn2.drop.ready` for a complete drop. Its payload is what the flow `score-drop` needs to be told.

    Args:
        drop: what is complete.
        seen: what is remembered of it; telling it again later is another event.
        store: absolute URI of the store.
        settings: pattern, groups, embed, score, group_score and tell settings as JSON.
    """
    emit(
        DROP_READY,
        {
            "prefect.resource.id": f"dn2.drop.{drop.id}",
            "prefect.resource.name": drop.uri,
            "dn2.bank": drop.bank,
        },
        {"drop": drop.id, "uri": drop.uri, "bank": drop.bank, "images": drop.images, "store": store, **settings},
        key=f"{drop.id}:{seen.told}",
    )


def tell_report(report: AnyReport, store: str, tell: TellConfig) -> None:
    """Emit `dn2.batch.scored`, and `dn2.batch.anomalous` if more is anomalous than `alert_rate`, and `drifted`."""
    resource = {
        "prefect.resource.id": f"dn2.report.{report.bank}.{report.uri.rpartition('/')[2]}",
        "prefect.resource.name": report.source,
        "dn2.bank": report.bank,
    }
    payload = {
        "source": report.source,
        "bank": report.bank,
        "bank_version": report.version,
        "of": report.of,
        "images": report.images,
        "scored": report.scored,
        "anomalous": report.anomalous,
        "selected": report.selected,
        "rejected": report.rejected,
        "anomalous_rate": round(report.anomalous_rate, 6),
        "rejected_rate": round(report.rejected / report.images, 6) if report.images else 0.0,
        **report.details,
        "false_discovery_rate": report.false_discovery_rate,
        "report": report.uri,
        "report_url": served(report.html, store, tell.report_base_url),
        "warnings": list(report.warnings),
        "doubts": [doubt.code for doubt in report.doubts],
    }
    emit(BATCH_SCORED, resource, payload, key=report.uri)
    if report.anomalous_rate > tell.alert_rate:
        emit(BATCH_ANOMALOUS, resource, payload, key=report.uri)
    if report.drift is not None and report.drift.drifted:
        emit(BATCH_DRIFTED, resource, payload, key=report.uri)
