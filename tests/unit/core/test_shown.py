"""No password of a URL is shown, in whatever text it stands."""

from __future__ import annotations

import pytest

from peftmark.core.errors import AssetError, UserError
from peftmark.core.shown import without_secrets
from peftmark.run import versions
from peftmark.sources.hub import hub_reachable
from peftmark.sources.pypi import Unavailable, one_line
from peftmark.storage.remote import shown_url
from waiting import PATIENCE

SHOWN = {
    "https://me:pw@hub.local": "https://hub.local",
    "https://me:pw@hub.local/a/b can't be reached": "https://hub.local/a/b can't be reached",
    "https://token@hub.local:8443/x": "https://hub.local:8443/x",
    "see 'http://me:p%40w@a.b', http://b.c": "see 'http://a.b', http://b.c",
    "http://me:a/slash@hub.local/x": "http://hub.local/x",
    "git+https://ghp_x@github.com/me/x@main": "git+https://github.com/me/x@main",
    "proxy me:pw@10.0.0.1:3128 refused": "proxy 10.0.0.1:3128 refused",
    "me:pw@proxy.local": "proxy.local",
    "https://b.c/file?X-Amz-Signature=pw&a=1 gone": "https://b.c/file gone",
    "s3://key:pw@bucket/x": "s3://bucket/x",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items())
def test_a_url_is_shown_without_user_password_and_query(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://hub.local:8080/a@b",
        "owner/name@0123456789abcdef",
        "peft @ file:///tmp/x",
        "mail me@here.org",
        "line 3: a: b@c is no number?",
        "12:30 at a.b",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_every_way_to_a_message_loses_them():
    """Errors for people, reasons of sources, words of libraries, URLs of results, requirements."""
    secret = "https://me:pw@hub.local/x"
    error = UserError(f"{secret} is gone", f"Open {secret}.")
    told = [
        str(error),
        repr(error),
        error.what,
        error.remedy,
        str(AssetError(secret)),
        str(Unavailable(secret)),
        one_line(RuntimeError(f"\n{secret}: 401")),
        shown_url(secret),
        versions.shown(("a==1", f"git+{secret}")),
        versions._slug((f"git+{secret}",)),
    ]
    for text in told:
        assert "hub.local" in text
        assert "pw" not in text


def test_a_hub_that_does_not_answer_is_named_without_its_password(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:pw@127.0.0.1:9")
    reachable, why = hub_reachable(timeout=PATIENCE)
    assert not reachable
    assert why.startswith("http://127.0.0.1:9 can't be reached: ")
    assert "pw" not in why


def test_requirements_with_other_passwords_are_other_environments():
    names = {versions._slug((f"git+https://{pw}@a.b/x",)) for pw in ("one", "two")}
    assert len(names) == 2
