"""The pages for people: the playground, and the documentation of the routes. Neither loads anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAYGROUND = Path(__file__).parent / "playground" / "index.html"

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


def content_security(page: str) -> str:
    """The policy under which exactly the page's own script and style run, and it speaks to nobody but its service."""
    found: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found[kind].append(f"'sha256-{digest}'")
    sources = [f"{kind}-src {' '.join(hashes) or chr(39) + 'none' + chr(39)}" for kind, hashes in found.items()]
    rest = "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    return "; ".join(["default-src 'none'", *sources, rest])


def headers(page: str) -> dict[str, str]:
    """What a page is sent with."""
    return {
        "Content-Security-Policy": content_security(page),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def documentation(schema: Mapping[str, Any]) -> str:
    """An OpenAPI document as a page: every route with what it takes and gives."""
    routes = "\n".join(
        _route(method, path, operation) for path, methods in schema["paths"].items() for method, operation in methods.items()
    )
    title, version = html.escape(schema["info"]["title"]), html.escape(schema["info"]["version"])
    about = _prose(schema["info"].get("description", ""))
    return _PAGE.format(title=title, version=version, about=about, routes=routes)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{_prose(operation.get('description', ''))}</p>"]
    if operation.get("security") == []:
        parts.append("<p>Needs no key.</p>")
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        parts.append(f"<h3>Takes <code>{html.escape(kind)}</code></h3>{_pre(shape(body.get('schema', {})))}")
        parts.extend(_pre(json.dumps(example["value"], ensure_ascii=False)) for example in body.get("examples", {}).values())
    answers = operation.get("responses", {})
    good = answers.get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    if good:
        parts.append(f"<h3>Gives</h3>{_pre(shape(good))}")
    rows = "".join(
        f"<tr><td>{html.escape(str(status))}</td><td>{html.escape(one['description'])}</td></tr>"
        for status, one in sorted(answers.items())
    )
    parts.append(f"<table><caption>Statuses</caption><tbody>{rows}</tbody></table>")
    summary = f"<summary><b>{method.upper()}</b> <code>{html.escape(path)}</code></summary>"
    return f"<details>{summary}{''.join(parts)}</details>"


def shape(schema: Mapping[str, Any], indent: str = "") -> str:
    """A JSON schema in short; what may be left out has a question mark.

    >>> print(shape({"type": "object", "required": ["a"], "properties": {"a": {"type": "array"}, "b": {"type": "string"}}}))
    {
      a: [any],
      b?: string
    }
    """
    kind = schema.get("type", "any")
    if kind == "array":
        return f"[{shape(schema.get('items', {}), indent)}]"
    if kind != "object":
        return "file" if schema.get("format") == "binary" else str(kind)
    inner = schema.get("properties")
    if not inner:
        more = schema.get("additionalProperties")
        return f"{{name: {shape(more, indent)}}}" if isinstance(more, Mapping) else "{…}"
    needed = schema.get("required", ())
    lines = [f"{indent}  {name}{'' if name in needed else '?'}: {shape(one, indent + '  ')}" for name, one in inner.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _pre(text: str) -> str:
    return f"<pre tabindex=0>{html.escape(text)}</pre>"


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(" ".join(text.split())))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Routes · {title}</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 0 auto; padding: 1rem; }}
details {{ border: 1px solid #8886; border-radius: 8px; margin: .6rem 0; padding: .3rem .9rem; }}
summary {{ cursor: pointer; padding: .4rem 0; overflow-wrap: anywhere; }}
summary b {{ display: inline-block; min-width: 3.2rem; }}
:focus-visible {{ outline: 3px solid currentColor; outline-offset: 2px; }}
h1 {{ font-size: 1.35rem; }} h3 {{ font-size: .95rem; margin: .8rem 0 .3rem; }}
pre, code {{ font: .85rem/1.5 ui-monospace, Menlo, monospace; }}
pre {{ background: #8881; border-radius: 6px; padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-size: .9rem; margin-bottom: .8rem; }}
caption {{ text-align: left; font-weight: 600; }} td {{ padding: .1rem 1rem .1rem 0; vertical-align: top; }}
</style>
</head>
<body>
<h1>{title} {version}: routes</h1>
<p>{about}</p>
<p><a href="/">Playground</a> · <a href="/openapi.json">openapi.json</a></p>
{routes}
</body>
</html>
"""
