"""The pages of the categories: who may, what is said before a merge, and that nothing typed is lost."""

from fastapi.testclient import TestClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.tables import Category
from tests.desk.conftest import Inbox

LIST = "/admin/categories"


def id_of(database: Database, name: str) -> int:
    with database.read() as session:
        return session.exec(select(Category.id).where(Category.name == name)).one()


def text(client: TestClient, address: str = LIST) -> str:
    response = client.get(address)
    assert response.status_code == 200, response.text
    return " ".join(response.text.split())


def test_only_admins(database: Database, inbox: Inbox, as_ana: TestClient, nobody: TestClient) -> None:
    number = id_of(database, "billing")
    for address in (LIST, f"{LIST}/{number}", f"{LIST}/{number}/merge?into=1"):
        assert as_ana.get(address).status_code == 403
        assert nobody.get(address, headers={"accept": "application/json"}).status_code == 401
    for address in (
        LIST,
        f"{LIST}/{number}/description",
        f"{LIST}/{number}/retire",
        f"{LIST}/{number}/merge/now",
    ):
        assert as_ana.post(address, data={"name": "x"}).status_code == 403


def test_the_list_says_what_is_there_and_what_a_change_does(inbox: Inbox, as_ada: TestClient) -> None:
    inbox.receive(brief={"category": "billing"})
    page = text(as_ada)
    assert "invoices, charges, payments, prices" in page
    assert "1 open, 1 in all" in page
    assert "No adapter is in use" in page


def test_adding_keeps_what_was_typed(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    refused = as_ada.post(LIST, data={"name": "Billing", "description": "<b>money</b>"})
    assert refused.status_code == 400
    assert "is there already" in refused.text
    assert 'value="&lt;b&gt;money&lt;/b&gt;"' in refused.text
    done = as_ada.post(LIST, data={"name": "<i>Privacy</i>", "description": "copies and erasure"})
    assert done.headers["location"] == f"{LIST}?note=added"
    page = text(as_ada, f"{LIST}?note=added")
    assert "&lt;i&gt;Privacy&lt;/i&gt;" in page
    assert "<i>Privacy" not in page
    assert "Added." in page
    assert "<script" not in text(as_ada, f"{LIST}?note=%3Cscript%3E").split("</head>")[1]


def test_description_order_and_retiring(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    number = id_of(database, "returns")
    long = "x" * 200
    refused = as_ada.post(f"{LIST}/{number}/description", data={"description": long})
    assert refused.status_code == 400
    assert long in refused.text
    assert as_ada.post(f"{LIST}/{number}/description", data={"description": "short"}).status_code == 303
    assert as_ada.post(f"{LIST}/{number}/up").headers["location"].startswith(f"{LIST}?note=moved")
    assert as_ada.post(f"{LIST}/{number}/retire").status_code == 303
    assert "kept by the conversations that have it" in text(as_ada)
    assert "Retire it" not in text(as_ada, f"{LIST}/{number}")
    assert as_ada.post(f"{LIST}/{number}/back").status_code == 303
    assert as_ada.post(f"{LIST}/{number}/nonsense").status_code == 400
    assert as_ada.post(f"{LIST}/9999/retire").status_code == 404


def test_a_merge_is_shown_first_and_done_then(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    conversation = inbox.receive(brief={"category": "refund"})
    old, new = id_of(database, "refund"), id_of(database, "returns")
    preview = text(as_ada, f"{LIST}/{old}/merge?into={new}")
    assert "Nothing has changed yet" in preview
    assert "One conversation (1 open) will be" in preview
    assert inbox.get(conversation).category == "refund"
    done = as_ada.post(f"{LIST}/{old}/merge/now", data={"into": str(new)})
    assert done.headers["location"] == f"{LIST}?note=merged"
    assert inbox.get(conversation).category == "returns"
    assert "merged into <bdi>returns</bdi>" in text(as_ada)


def test_a_merge_without_a_target_says_so(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    number = id_of(database, "billing")
    assert as_ada.get(f"{LIST}/{number}/merge?into=").status_code == 400
    answer = as_ada.get(f"{LIST}/{number}/merge")
    assert answer.status_code == 400
    assert "Choose another category first" in answer.text
    assert as_ada.post(f"{LIST}/{number}/merge/now", data={"into": "x"}).status_code == 400
    taken = as_ada.post(f"{LIST}/{number}/merge/now", data={"name": "other"})
    assert taken.status_code == 400
    assert "is there already" in taken.text


def test_renaming(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    conversation = inbox.receive(brief={"category": "billing"})
    number = id_of(database, "billing")
    assert "Rename <bdi>billing</bdi> to <bdi>money</bdi>?" in text(
        as_ada, f"{LIST}/{number}/merge?name=money"
    )
    assert as_ada.post(f"{LIST}/{number}/merge/now", data={"name": "money"}).status_code == 303
    assert inbox.get(conversation).category == "money"
