"""What the server does by itself: notice dead runs, start crashed ones again, tell somebody."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import SecretDict
from pydantic import SecretStr

HEARTBEATS = timedelta(seconds=90)  # three of the heartbeats that prefect.yaml asks for
TELLING = ("dn2: tell of failed runs", "dn2: tell of anomalous batches", "dn2: tell of scored batches")
_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.dn2"}
_RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
_ENDS = {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Cancelled", "Crashed")}


def automations(hook: UUID | None) -> tuple[AutomationCore, ...]:
    """Return the automations, with those that tell somebody only if there is a webhook.

    Args:
        hook: id of the block that `webhook` has made.
    """
    dead = AutomationCore(
        name="dn2: dead runs are marked Crashed",
        description="A run whose worker and process died sends no more heartbeats.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *_ENDS},
            match=_RUNS,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=HEARTBEATS,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat for 90 seconds: the run is dead.")],
    )
    again = AutomationCore(
        name="dn2: crashed runs start again",
        description="The same run with the same parameters; what is finished in the store is not done again.",
        trigger=_after("prefect.flow-run.Crashed"),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="The run crashed and starts again by itself."
            )
        ],
    )
    if hook is None:
        return dead, again
    failed = AutomationCore(
        name=TELLING[0],
        description="An example: POSTs one line to DN2_NOTIFY_URL.",
        trigger=_after("prefect.flow-run.Failed"),
        actions=[
            _post(
                hook,
                "failed",
                "'dn2: ' ~ flow.name ~ ' failed: ' ~ flow_run.state.message ~ ' ' ~ (flow_run | ui_url or '')",
            )
        ],
    )
    anomalous = _of_batches(TELLING[1], hook, "anomalous", enabled=True)
    scored = _of_batches(TELLING[2], hook, "scored", enabled=False)  # switch it on to hear of every batch
    return dead, again, failed, anomalous, scored


def _of_batches(name: str, hook: UUID, event: str, *, enabled: bool) -> AutomationCore:
    """Return an automation that tells of each event `dn2.batch.<event>`."""
    line = (
        "'dn2: ' ~ event.payload.anomalous ~ ' of ' ~ event.payload.scored ~ ' images of ' ~ event.payload.source ~ "
        "' are anomalous: ' ~ (event.payload.report_url or event.payload.report)"
    )
    trigger = EventTrigger(
        expect={f"dn2.batch.{event}"},
        match={"prefect.resource.id": "dn2.report.*"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
    return AutomationCore(
        name=name,
        description="An example: POSTs one line to DN2_NOTIFY_URL.",
        enabled=enabled,
        trigger=trigger,
        actions=[_post(hook, event, line)],
    )


def _after(event: str) -> EventTrigger:
    return EventTrigger(
        expect={event},
        match=_RUNS,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _post(hook: UUID, event: str, line: str) -> CallWebhook:
    """Return an action that POSTs {"event": ..., "text": ...}, as chat systems understand it.

    Args:
        hook: where to.
        event: what happened.
        line: a Jinja expression; its value is encoded as a whole, because names in it come from outside.
    """
    return CallWebhook(block_document_id=hook, payload=f'{{"event": "{event}", "text": {{{{ ({line}) | tojson }}}} }}')


def webhook(url: str) -> UUID:
    """Create or update the block that POSTs to a web address; return its id."""
    block = Webhook(method="POST", url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    return UUID(str(block.save("dn2-notify", overwrite=True)))
