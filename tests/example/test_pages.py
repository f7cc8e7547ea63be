from __future__ import annotations

import io
import re
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app import functions
from example_app import media
from example_app import recordings
from example_app import search
from example_app import steps
from example_app import storage
from example_app.demo import demo
from example_app.embedding import embed
from example_app.models import db
from example_app.models import Status
from example_app.progress import STEPS
from flask_durable import Event
from flask_durable import UnavailableError

SAMPLE = "samples/sense-and-sensibility-0920.wav"


def post(client: FlaskClient, clip: Path, name: str = "", **form: str) -> t.Any:
    with clip.open("rb") as file:
        return client.post(
            "/recordings", data={"audio": (file, name or clip.name), **form}
        )


def body(client: FlaskClient, address: str) -> bytes:
    # Closed, as a server would: the client leaves files open otherwise.
    with client.get(address) as response:
        assert response.status_code == 200
        data: bytes = response.data
        return data


def add(
    id: str,
    title: str,
    words: str,
    tenant: str = "home",
    status: Status = Status.PUBLISHED,
) -> None:
    recordings.add(id, title=title, tenant=tenant)
    transcript = steps.join(id, [[media.Passage(3.5, 4.0, words)]])
    steps.index(id, transcript, embed(words))
    recordings.update(id, status=status)


def test_the_first_page_asks_for_a_recording(client: FlaskClient) -> None:
    page = client.get("/")

    assert page.status_code == 200
    assert 'type="file"' in page.text
    assert "Nothing here yet" in page.text


def test_an_upload_is_kept_and_its_event_sent(
    app: Flask, client: FlaskClient, clip: Path, sent: list[Event[t.Any]]
) -> None:
    response = post(client, clip, "My_first talk.WAV")

    assert response.status_code == 303
    (event,) = sent
    assert event.name == "transcription/requested"
    assert event.data.title == "My first talk"
    assert event.data.tenant == "home"
    assert response.location == f"/recordings/{event.id}"
    assert storage.find(event.data.audio_path).read_bytes() == clip.read_bytes()
    page = client.get(response.location)
    assert "My first talk" in page.text
    assert "queued" in page.text


@pytest.mark.parametrize("asked", ["", "fail", "kill", "format-the-disk"])
def test_a_rehearsal_is_passed_on_when_it_is_known_and_allowed(
    app: Flask, client: FlaskClient, clip: Path, sent: list[Event[t.Any]], asked: str
) -> None:
    post(client, clip, rehearse=asked)
    app.config["REHEARSALS"] = False
    post(client, clip, rehearse=asked)

    known = asked if asked in ("fail", "kill") else ""
    assert [event.data.rehearse for event in sent] == [known, ""]
    assert "Rehearse" not in client.get("/").text


def test_no_file_is_answered_with_the_form(
    client: FlaskClient, sent: list[Event[t.Any]]
) -> None:
    for data in ({}, {"audio": "text"}, {"audio": (io.BytesIO(b""), "")}):
        response = client.post("/recordings", data=data)
        assert response.status_code == 400
        assert "Choose an audio file first." in response.text
    assert sent == []


def test_a_file_that_is_too_large_is_answered_with_the_limit(
    app: Flask, client: FlaskClient, sent: list[Event[t.Any]]
) -> None:
    response = client.post(
        "/recordings",
        data=b"--x",
        content_type="multipart/form-data; boundary=x",
        environ_overrides={"CONTENT_LENGTH": str(app.config["MAX_CONTENT_LENGTH"] + 1)},
    )

    assert response.status_code == 413
    assert "larger than 200 MiB" in response.text
    assert sent == []


def test_an_upload_without_a_queue_leaves_no_recording(
    client: FlaskClient, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(data: object, *, id: str) -> str:
        raise UnavailableError("The queue did not take it.")

    monkeypatch.setattr(functions.durable, "send", send)

    response = post(client, clip)

    assert response.status_code == 503
    assert "Try again later" in response.text
    assert recordings.latest("home") == []


def test_hostile_names_are_shown_and_not_run(
    client: FlaskClient, clip: Path, sent: list[Event[t.Any]]
) -> None:
    name = "<script>alert(1)<script>.wav"
    page = client.get(post(client, clip, name).location)

    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>alert" not in client.get("/").text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_status_is_json(client: FlaskClient) -> None:
    recordings.add("r1", title="A clip", tenant="home")
    waiting = client.get("/recordings/r1/status").json
    add("r1", "A clip", "elephant")
    published = client.get("/recordings/r1/status").json

    assert waiting is not None
    assert published is not None
    assert (waiting["status"], waiting["finished"]) == ("queued", False)
    assert (published["status"], published["finished"]) == ("published", True)
    assert waiting["revision"] != published["revision"]
    assert [step["name"] for step in waiting["steps"]] == list(STEPS)


def test_a_page_in_progress_refreshes_without_javascript(client: FlaskClient) -> None:
    recordings.add("r1", title="A clip", tenant="home")
    refresh = '<noscript><meta http-equiv="refresh"'

    assert refresh in client.get("/recordings/r1").text
    steps.mark_failed("r1", "It is a shopping list.")
    page = client.get("/recordings/r1").text
    assert refresh not in page
    assert "It is a shopping list." in page


def test_a_finished_recording_can_be_read_and_heard(client: FlaskClient) -> None:
    steps.fetch_audio_metadata("r1", SAMPLE, "A clip", "home")
    steps.transcode("r1", SAMPLE, "")
    add("r1", "A clip", "elephant")
    page = client.get("/recordings/r1").text

    assert "elephant" in page
    assert "/recordings/r1/audio.mp3#t=3.5" in page
    assert "16 kHz, mono" in page
    playlist = body(client, "/recordings/r1/playlist.m3u8").decode()
    names = re.findall(r"^\d+\.mp3$", playlist, re.MULTILINE)
    segments = [body(client, f"/recordings/r1/{name}") for name in names]
    assert len(segments) == 2
    assert b"".join(segments) == body(client, "/recordings/r1/audio.mp3")


def test_a_part_of_the_sound_can_be_asked_for(client: FlaskClient) -> None:
    recordings.add("r1", title="A clip", tenant="home")
    steps.transcode("r1", SAMPLE, "")
    whole = body(client, "/recordings/r1/audio.mp3")
    size = len(whole)

    for asked, expected in {
        "bytes=0-99": whole[:100],
        "bytes=30000-33999": whole[30000:34000],
        "bytes=-10": whole[-10:],
        f"bytes={size - 5}-": whole[-5:],
    }.items():
        part = client.get("/recordings/r1/audio.mp3", headers={"Range": asked})
        assert (part.status_code, part.data) == (206, expected)
    beyond = client.get(
        "/recordings/r1/audio.mp3", headers={"Range": f"bytes={size + 1}-"}
    )
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    "address",
    [
        "/recordings/none",
        "/recordings/none/status",
        "/recordings/none/audio.mp3",
        "/recordings/r1/audio.mp3",
        "/recordings/r1/stream.json",
        "/recordings/r1/../../recordings.db",
        "/recordings/r1/%2e%2e/%2e%2e/recordings.db",
        "/recordings/r1/../../../recordings.db.mp3",
        "/recordings/r1/%2e%2e/%2e%2e/%2e%2e/secret.mp3",
        "/recordings/r1//etc/passwd.mp3",
        "/recordings/%2e%2e/playlist.m3u8",
    ],
)
def test_what_is_not_there_or_not_ours_to_show_is_not_found(
    app: Flask, client: FlaskClient, address: str
) -> None:
    recordings.add("r1", title="A clip", tenant="home")
    (Path(app.instance_path) / "secret.mp3").write_bytes(b"secret")

    assert client.get(address, follow_redirects=True).status_code == 404


def test_search_finds_word_forms_and_beginnings(client: FlaskClient) -> None:
    add("r1", "Austen", "had he married a more amiable woman")
    add("r2", "Melville", "call me some years ago")

    for query in ("married", "marries woman", "AMIABLE", "woman amia", "austen"):
        page = client.get("/", query_string={"q": query}).text
        assert "/recordings/r1" in page, query
        assert "/recordings/r2" not in page, query
    assert "<mark>married</mark>" in client.get("/?q=married").text
    assert "No recordings with" in client.get("/?q=woman+years").text


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '""',
        "'",
        "*",
        "woman*",
        "^woman",
        "NEAR(",
        "NEAR(woman, 5)",
        "title:woman",
        "recording_id : r1",
        "-woman",
        "woman AND",
        "OR OR OR",
        "NOT",
        '" OR 1=1 --',
        "'; DROP TABLE transcripts; --",
        "{title text} : woman",
        "a + b",
        "\\",
        "\0",
        "\x02woman\x03",
        "  ",
        "%_",
        "été ßtraße 漢字",
        "woman " * 5000,
        "<b>woman</b>",
    ],
)
def test_no_query_is_an_error(client: FlaskClient, query: str) -> None:
    add("r1", "Austen", "had he married a more amiable woman")

    page = client.get("/", query_string={"q": query})

    assert page.status_code == 200
    assert "<b>woman" not in page.text
    assert len(search.find("woman", "home")) == 1


def test_operators_are_words_like_others(app: Flask) -> None:
    add("r1", "A clip", "neither near nor far and not here")

    assert len(search.find("NOT here", "home")) == 1
    assert len(search.find("near AND far", "home")) == 1
    assert search.find("elephant OR near", "home") == []


def test_marks_in_what_was_found_are_escaped(app: Flask) -> None:
    add("r1", "<i>Title</i>", "<b>bold</b> words & more")

    (hit,) = search.find("bold", "home")

    assert "<b>" not in hit.excerpt
    assert "<mark>bold</mark>" in hit.excerpt
    assert hit.title == "&lt;i&gt;Title&lt;/i&gt;"


def test_misspelt_words_find_what_is_similar(client: FlaskClient) -> None:
    add("r1", "Austen", "had he married a more amiable woman")
    add("r2", "Melville", "call me some years ago")

    page = client.get("/?q=maried+amiabel").text

    assert "No recordings with" in page
    assert "/recordings/r1" in page.partition("Similar to it")[2]
    assert "/recordings/r2" not in page
    assert "Similar to it" not in client.get("/?q=married").text


def test_a_recording_names_those_that_are_similar(client: FlaskClient) -> None:
    add("r1", "Austen", "had he married a more amiable woman")
    add("r2", "<b>Austen</b> again", "the woman he married was more amiable")
    add("r3", "Melville", "call me some years ago")

    similar = client.get("/recordings/r1").text.partition("Similar recordings")[2]

    assert "/recordings/r2" in similar
    assert "&lt;b&gt;Austen" in similar
    assert "/recordings/r3" not in similar
    assert "/recordings/r1" not in similar


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.PUBLISHED])
def test_what_is_not_published_is_for_its_owner_alone(
    app: Flask, client: FlaskClient, status: Status
) -> None:
    add("r1", "Austen", "had he married a more amiable woman", "ann", status)
    add("r2", "Melville", "a woman said call me some years ago")
    steps.transcode("r1", SAMPLE, "")
    pages = ["/", "/?q=married", "/?q=maried+amiabel", "/recordings/r2", "/mail"]
    own = [f"/recordings/r1{end}" for end in ("", "/status", "/audio.mp3", "/000.mp3")]

    assert not [page for page in pages if "Austen" in client.get(page).text]
    assert {client.get(address).status_code for address in own} == {404}
    app.config["TENANT"] = "ann"
    assert "Austen" in client.get("/").text
    assert "Austen" in client.get("/?q=married").text
    assert "Austen" in client.get("/?q=maried+amiabel").text
    assert all(body(client, address) for address in own)


def test_the_owner_gets_a_mail_and_others_do_not(
    app: Flask, client: FlaskClient
) -> None:
    add("r1", "Austen", "once upon a time", "ann")
    steps.publish("r1", "ann", 4)
    db.session.commit()

    assert "4 words, ready to read." not in client.get("/mail").text
    app.config["TENANT"] = "ann"
    assert "4 words, ready to read." in client.get("/mail").text
    assert "4 words, ready to read." in client.get("/").text


def test_the_command_is_found(app: Flask) -> None:
    assert app.cli.commands["demo"] is demo
    for arguments in (["--break=other"], ["no-such-file.wav"]):
        result = app.test_cli_runner().invoke(demo, arguments)
        assert result.exit_code == 2
