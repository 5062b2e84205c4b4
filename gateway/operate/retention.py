"""Legal holds, and the proof that a message was erased."""

from gateway.errors import NotFound
from gateway.operate import messages
from gateway.store.api import AuditEntry, Message, MessageFilter, Store
from gateway.store.keeping import proof

PAGE = 500


async def chosen(store: Store, message: str | None, conversation: str | None) -> list[Message]:
    """The message named by an id or a prefix, or all there are of a conversation. Raises `NotFound`."""
    if message is not None:
        return [await messages.one(store, message)]
    found: list[Message] = []
    wanted = MessageFilter(conversation_id=conversation, limit=PAGE)
    while page := await store.messages(wanted):
        found += page
        if len(page) < PAGE:
            break
        wanted = MessageFilter(conversation_id=conversation, limit=PAGE, after=(page[-1].created_at, page[-1].id))
    if not found:
        raise NotFound(f"there is no message of the conversation {conversation}")
    return found


async def when_erased(store: Store, message_id: str) -> AuditEntry:
    """The audit row that proves it; its subject is replaced by the proof. Raises `NotFound`."""
    wanted, after = proof(message_id), 0
    while page := await store.audit_entries(after=after, limit=1000):
        for entry in page:
            if entry.kind == "messages.forgotten" and wanted in entry.detail.get("proofs", ()):
                return AuditEntry(kind=entry.kind, actor=entry.actor, subject=wanted, detail=entry.detail, at=entry.at,
                                  number=entry.number)  # fmt: skip
        after = page[-1].number
    raise NotFound("the audit knows of no message with that MessageId that was erased")
