from __future__ import annotations

import pytest

from tunesmith.runs.masking import masked, masked_command, masked_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN=hf_abc", "HF_TOKEN=***"),
        ("--api-key=abc", "--api-key=***"),
        ("--password 'a b'", "--password 'a b'"),  # two words of a command: see below
        ("db_password: 'a b' x", "db_password: *** x"),
        ("s3://AKIA:sec/ret@bucket/x", "s3://***@bucket/x"),
        ("s3://AKIA:secret@bucket/x", "s3://***@bucket/x"),
        ("https://me:pw@host/?api_key=1&x=2", "https://***@host/?api_key=***&x=2"),
        ("see hf_abcdefghijklmnopqrst", "see ***"),
        ("training.max_tokens=5 tokenizer=a", "training.max_tokens=5 tokenizer=a"),
        ("monkey=1 keyboard=2 data.train=a.csv", "monkey=1 keyboard=2 data.train=a.csv"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_the_word_after_a_secret_flag_is_masked() -> None:
    command = ["tunesmith", "train", "r.yaml", "--password", "a b", "--on", "http://h:8265", "--token", "--force"]
    assert masked_command(command) == [*command[:4], "***", *command[5:]]


def test_uris_deep_in_a_record_lose_their_credentials() -> None:
    record = {"data": [{"source": "gs://u:p@b/x"}, 3, None], "token_count": "5"}
    assert masked_values(record) == {"data": [{"source": "gs://***@b/x"}, 3, None], "token_count": "5"}


@pytest.mark.parametrize(
    "command", [["predict", "--key", "tsk_0123456789abcdef0123"], ["predict", "--key=tsk_0123456789abcdef0123"]]
)
def test_a_services_key_is_masked(command: list[str]) -> None:
    assert "0123" not in " ".join(masked_command(command))
    assert masked_command(["predict", "--keys", "keys.json"]) == ["predict", "--keys", "keys.json"]
