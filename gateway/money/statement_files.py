"""Customer statements as files: HTML that needs nothing else, and JSON for a mail system. The same statement makes the
same bytes; a manifest names each file with its SHA-256."""

import hashlib
from collections.abc import Iterable, Mapping
from html import escape

import orjson

from gateway.domain.money.postings import month_text
from gateway.domain.money.statements import CustomerStatement

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}table{border-collapse:collapse;width:100%}th,td{padding:.4rem .5rem;text-align:left;"
    "border-bottom:1px solid #ccc}td.m,th.m{text-align:right;font-variant-numeric:tabular-nums}"
    "tfoot td{font-weight:600;border-top:2px solid #1a1a1a}small{color:#555}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}th,td{border-color:#444}"
    "tfoot td{border-top-color:#eee}small{color:#aaa}}"
)


def as_json(one: CustomerStatement) -> bytes:
    """Money as texts; an entry of `lines` per program and month."""
    return orjson.dumps(
        {
            "number": one.number,
            "restates": one.restates or None,
            "customer": one.customer,
            "period": one.period.name,
            "currency": one.currency,
            "opening": str(one.opening),
            "earned": str(one.earned),
            "held_back": str(one.held_back),
            "paid": str(one.paid),
            "written_off": str(one.written_off),
            "closing": str(one.closing),
            "lines": [
                {
                    "program": line.program,
                    "month": month_text(line.month),
                    "site": line.site,
                    "amount": str(line.amount),
                    "correction": line.corrects,
                    "rests_on": list(line.rests_on),
                    "postings": list(line.postings),
                }
                for line in one.lines
            ],
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )


def as_html(one: CustomerStatement) -> bytes:
    """One page without a script or anything from elsewhere."""
    head = f"Statement {one.number}"
    rows = [
        f"<tr><td>{month_text(line.month)}</td><td>{escape(line.program)}</td><td>{escape(line.site)}</td>"
        f"<td>{'correction of an earlier amount' if line.corrects else 'earned'}</td>"
        f'<td class="m">{line.amount:f}</td></tr>'
        for line in one.lines
    ]
    if not rows:
        rows = ['<tr><td colspan="5">Nothing was earned in this period.</td></tr>']
    sums = [
        ("Owed to you before this period", one.opening),
        ("Earned in this period", one.earned),
        ("Held back", -one.held_back),
        ("Paid to you", -one.paid),
        ("Written off", one.written_off),
    ]
    shown = [(words, amount) for words, amount in sums if amount or words.startswith(("Owed", "Earned"))]
    restates = f"<p>It takes the place of statement {escape(one.restates)}.</p>" if one.restates else ""
    page = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(head)}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(head)}</h1>",
        f"<p>For customer {escape(one.customer)}, {escape(one.period.name)} ({month_text(one.period.first)} to "
        f"{month_text(one.period.last)}); all amounts in {escape(one.currency)}.</p>",
        restates,
        "<table><thead><tr><th>Month</th><th>Program</th><th>Home</th><th>What</th>"
        '<th class="m">Amount</th></tr></thead><tbody>',
        *rows,
        f'</tbody><tfoot><tr><td colspan="4">Earned</td><td class="m">{one.earned:f}</td></tr></tfoot></table>',
        "<h2>What is owed to you</h2><table><tbody>",
        *(f'<tr><td>{escape(words)}</td><td class="m">{amount:f}</td></tr>' for words, amount in shown),
        "</tbody><tfoot><tr><td>Owed to you at the end of this period</td>"
        f'<td class="m">{one.closing:f}</td></tr></tfoot></table>',
        "<h2>What it rests on</h2><ul>",
        *(f"<li><small>{escape(words)}</small></li>" for words in _grounds(one)),
        "</ul></body></html>",
    ]
    return "\n".join(part for part in page if part).encode() + b"\n"


def manifest(
    period: str, files: Mapping[str, bytes], *, totals: Mapping[str, str], without: Mapping[str, str]
) -> bytes:
    """The list of a run's files with their SHA-256, its totals, and customers without a statement with the reason."""
    return orjson.dumps(
        {
            "period": period,
            "totals": dict(totals),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
            "without": dict(sorted(without.items())),
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )


def _grounds(one: CustomerStatement) -> Iterable[str]:
    return dict.fromkeys(reason for line in one.lines for reason in line.rests_on)
