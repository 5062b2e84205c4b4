"""No route shows or touches a message outside of the caller's backend and scope [threats L01].

Every operation of the REST door is walked from its table, so that a new one is walked, too, and every
operation of the SOAP door. Foreign messages bear marks in everything they say: none may appear in any answer, and
afterwards all is as it was.
"""

import re
from itertools import product
from urllib.parse import quote

import pytest

from gateway.backends.domibus_ws.names import OLD, PLUGIN
from gateway.backends.domibus_ws.operations import OLD_OPERATIONS
from gateway.backends.domibus_ws.operations import OPERATIONS as SOAP_OPERATIONS
from gateway.backends.rest.operations import OPERATIONS
from gateway.operate import backends
from gateway.scope import Scope
from gateway.store.api import Viewer
from tests.unit.backends.rest.real import real, streamed

MARK = "zq7marked"
DOORS = (("/services/wsplugin", PLUGIN, SOAP_OPERATIONS), ("/services/backend", OLD, OLD_OPERATIONS))
ACTION = "ExecuteQueryRequest"
#: Who sees nothing of the marked messages: another backend; the same one within other bounds.
STRANGERS = (
    ("portal", {}), ("portal", {"actions": (ACTION,)}), ("rest", {"actions": ("none",)}), ("rest", {"partners": ("AP_FI_01",)}),
    ("rest", {"original_senders": ("nobody",), "final_recipients": ("nobody",)}),
)  # fmt: skip


@pytest.fixture
async def site(tmp_path):
    async with real(tmp_path / "lv") as found:
        yield found


async def marked(site):
    """An outbound and an inbound message of `rest`, the second one claimed; an upload and a webhook of its client."""
    http = await site.client("owner")
    out = await site.submit(http, message_id=f"{MARK}-out@lv.example", conversation_id=f"{MARK}-c")
    await site.lv.send_due()
    waits = await site.submit(http, key="k2", message_id=f"{MARK}-waits@lv.example", conversation_id=f"{MARK}-c")
    received = await site.receive(message_id=f"{MARK}-in@peer.example", conversation_id=f"{MARK}-c")
    [lent] = (await http.post("/v1/inbox/claim", json={"lease": 3600})).json()["deliveries"]
    upload = (await http.post("/v1/uploads", json={"size": 3})).json()
    webhook = (await http.post("/v1/webhooks", json={"url": f"http://127.0.0.1:9443/{MARK}"})).json()
    views = [(await http.get(f"/v1/messages/{id}")).json() for id in (out["id"], waits["id"], str(received.id))]
    return {
        "messages": [*(v["id"] for v in views), *(v["message_id"] for v in views)],
        "cids": [v["parts"][0]["cid"] for v in views], "delivery": lent["delivery_id"], "claim": lent["claim"],
        "upload": upload["id"], "webhook": webhook["id"], "views": views, "http": http,
    }  # fmt: skip


def paths(path: str, ids: dict) -> list[str]:
    """The path with every foreign id in its places. A parameter that nobody knows is a route that is not walked."""
    if "{" not in path:
        return [path]
    if path.startswith("/v1/messages/{id}"):
        found = [path.replace("{id}", quote(id, safe="")) for id in ids["messages"]]
        found = [p.replace("{cid:path}", cid) for p in found for cid in ids["cids"]] if "{cid" in path else found
        return [p.replace("{which}", w) for p in found for w in ("request", "response")] if "{which}" in path else found
    places = {"{delivery_id}": ids["delivery"], "{id:path}": f"{MARK}-c"}
    places["{id}"] = ids["upload"] if "/uploads/" in path else ids["webhook"]
    for name in re.findall(r"\{\w+(?::\w+)?\}", path):
        path = path.replace(name, places.get(name, ids["webhook"]))
    return [path]


def body(operation, ids):
    if operation.path.startswith("/v1/inbox/{"):
        return {"json": {"claim": ids["claim"]}}
    if operation.consumes:
        return {"content": b"abc", "headers": {"Content-Type": operation.consumes, "Upload-Offset": "0"}}
    if "url" in getattr(operation.request, "__struct_fields__", ()):
        return {"json": {"url": "http://127.0.0.1:9443/mine"}}
    return {"json": {}} if operation.method in ("POST", "PUT", "PATCH") else {}


@pytest.mark.parametrize(("backend", "scope"), STRANGERS, ids=[f"{b} {s}" for b, s in STRANGERS])
async def test_no_rest_route_shows_or_touches_what_is_not_the_callers(site, backend, scope):
    ids = await marked(site)
    before = await state(site, ids)
    stranger = await site.client("stranger", backend, **scope)
    filters = ("", f"?conversation_id={MARK}-c", f"?message_id={MARK}-in%40peer.example", "?limit=500")
    for operation in OPERATIONS:
        if operation.path == "/v1/events":
            continue
        for path in paths(operation.path, ids):
            lists = operation.method == "GET" and path in ("/v1/messages", "/v1/inbox/peek")
            for query in filters if lists else ("",):
                answer = await stranger.request(operation.method, path + query, **body(operation, ids))
                said = answer.text + str(answer.headers)
                assert MARK not in said, (operation.method, path)
                if "{" in operation.path and not path.startswith("/v1/parties"):
                    assert answer.status_code in (404, 405), (operation.method, path, answer.status_code, answer.text)
    headers = {"Authorization": f"Bearer {stranger.token}"}
    status, _, text = await streamed(
        site.lv.gateway.plugin, "/v1/events?after=0", headers, until=lambda text: ": nothing new" in text or "event:" in text
    )
    assert status == 200 and "event:" not in text
    upload = {"parts": [{"mime_type": "a/b", "upload": ids["upload"]}]}
    answer = await stranger.post("/v1/messages:validate", json={"action": ACTION, "to_party": {"id": "AP_EE_01"}} | upload)
    assert answer.status_code == 422 or answer.status_code == 400, answer.text
    assert await state(site, ids) == before


async def state(site, ids):
    """Everything of the marked messages, jobs and uploads that a stranger could have changed."""
    views = [(await ids["http"].get(f"/v1/messages/{v['id']}")).json() for v in ids["views"]]
    events = await site.store.events(viewer=Viewer("rest"), limit=1000)
    upload = (await ids["http"].get(f"/v1/uploads/{ids['upload']}")).json()
    webhooks = (await ids["http"].get("/v1/webhooks")).json()
    extended = [(job.state, job.claim, job.due_at) for job in site.store._jobs.values()]
    return views, events, upload, webhooks, extended


async def test_the_owner_is_shown_all_of_it(site):
    """The walk would prove nothing if nobody could see the messages."""
    ids = await marked(site)
    seen = 0
    for operation in OPERATIONS:
        if operation.method == "GET" and operation.path != "/v1/events":
            for path in paths(operation.path, ids):
                answer = await ids["http"].get(path)
                seen += MARK in answer.text or answer.status_code == 200
    assert seen > 40


# -- the SOAP door ------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "scope"), STRANGERS, ids=[f"{b} {s}" for b, s in STRANGERS])
async def test_no_soap_operation_shows_or_touches_what_is_not_the_callers(site, backend, scope, monkeypatch):
    import base64

    import httpx

    from gateway.msh import access

    monkeypatch.setattr(access, "ROUNDS", 4)
    ids = await marked(site)
    before = await state(site, ids)
    _, password = await backends.create(site.store, "user", backend, Scope(**scope), login="user")
    basic = base64.b64encode(f"user:{password}".encode()).decode()
    transport = httpx.ASGITransport(site.lv.gateway.plugin, raise_app_exceptions=False)
    names = [f"{MARK}-out@lv.example", f"{MARK}-waits@lv.example", f"{MARK}-in@peer.example"]
    walked = set()
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as http:
        headers = {"Content-Type": "application/soap+xml", "Authorization": f"Basic {basic}"}
        for path, namespace, table in DOORS:
            for request, id, role in product(table.keys() - {"submitRequest"}, names, ("SENDING", "RECEIVING")):
                answer = await http.post(path, content=envelope(request, namespace, id, role), headers=headers)
                walked.add(request)
                said = answer.text.replace(id, "")  # a fault may repeat what was asked
                assert MARK not in said, (request, id, answer.text)
                assert "ACKNOWLEDGED" not in said and "RECEIVED" not in said and "SEND_ENQUEUED" not in said, said
                assert answer.status_code != 401, answer.text
    assert len(walked) > 8 and await state(site, ids) == before


def envelope(request: str, namespace: str, id: str, role: str) -> str:
    given = "" if request.startswith("list") else f"<messageID>{id}</messageID>"
    if "Role" in request:
        given += f"<accessPointRole>{role}</accessPointRole>"
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>'
        f'<w:{request} xmlns:w="{namespace}">{given}</w:{request}></s:Body></s:Envelope>'
    )
