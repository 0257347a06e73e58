"""The study file: one SQLite database that holds everything a study has produced.

WAL mode, one writer (a lock file refuses a second), a commit per row: whatever moment the process dies at, what was
stored is kept. Every row's key is the hash of what produced it, so asking again finds it and nothing is done twice.
"""

from __future__ import annotations

import io
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError
from esr.judging.client import Call
from esr.judging.records import Judgement, judgement_from_json
from esr.steering.engine import Response

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS responses (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, token_ids TEXT NOT NULL, finish TEXT NOT NULL,
    steered_positions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, purpose TEXT NOT NULL, condition TEXT NOT NULL, direction TEXT NOT NULL,
    prompt_index INTEGER NOT NULL, prompt TEXT NOT NULL, seed INTEGER NOT NULL, boost REAL NOT NULL,
    response TEXT NOT NULL, origin TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS grades (
    response TEXT NOT NULL, judge TEXT NOT NULL, judgement TEXT NOT NULL, PRIMARY KEY (response, judge));
CREATE TABLE IF NOT EXISTS judge_calls (
    judge TEXT NOT NULL, response TEXT NOT NULL, input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER);
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS screens (
    response TEXT NOT NULL, version INTEGER NOT NULL, restart INTEGER NOT NULL, PRIMARY KEY (response, version));
CREATE TABLE IF NOT EXISTS readings (
    response TEXT NOT NULL, kind TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (response, kind));
CREATE TABLE IF NOT EXISTS stages (
    stage TEXT PRIMARY KEY, seconds REAL NOT NULL, tokens INTEGER NOT NULL, responses INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS collapses (
    response TEXT NOT NULL, version INTEGER NOT NULL, degraded INTEGER NOT NULL, PRIMARY KEY (response, version));
CREATE INDEX IF NOT EXISTS trials_by_place ON trials (purpose, condition, direction, prompt_index, seed, response);
CREATE INDEX IF NOT EXISTS grades_left_out ON grades (judge, response)
    WHERE judgement = '{"reason": "not sampled", "detail": ""}';
"""
_LEFT_OUT = """judgement = '{"reason": "not sampled", "detail": ""}'"""  # in the words of the index grades_left_out
_CACHE = 64 * 1024  # KiB of pages kept: keys are hashes, so every row is written to other pages of the indexes


@dataclass(frozen=True)
class Origin:
    """Where the beginning of a response comes from, when the model was made to continue a text."""

    source: str = ""
    """Key of the trial whose response it was taken from; empty: of none."""
    tokens: int = 0
    """How many of the response's tokens were given."""
    characters: int = 0
    """How many of its text's characters."""
    left_out: bool = False
    """The judge sees what follows only."""

    @property
    def judged_from(self) -> int:
        """First character of the response that the judge sees."""
        return self.characters if self.left_out else 0


NOWHERE = Origin()


@dataclass(frozen=True)
class TrialRow:
    """One trial as stored; ``purpose`` is ``trial`` for the grid, else the stage that needed it."""

    key: str
    purpose: str
    condition: str
    direction: str
    prompt_index: int
    prompt: str
    seed: int
    boost: float
    response: str
    """Key of the response; trials that ask for the very same thing share it."""
    origin: Origin = NOWHERE


@dataclass(frozen=True)
class JudgedTrial:
    """A trial as analyses need it: its text, not its tokens."""

    trial: TrialRow
    text: str
    """The whole response. Untrusted."""
    n_tokens: int
    finish: str
    judgement: Judgement


class Store:
    """Reads and writes ``study.sqlite``. Use ``Store.writing`` or ``Store.reading``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    @contextmanager
    def writing(cls, folder: Path) -> Iterator[Self]:
        """Open for writing. Raises UserError when another process writes, or the folder cannot be written."""
        from filelock import FileLock, Timeout

        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                "one process writes to a study at a time",
                f"another one holds {folder}",
                "Wait for it, or stop it",
            ) from None
        except OSError as error:
            raise UserError("the study's folder is writable", f"{error.strerror}: {folder}") from None
        try:
            with _clear_errors(folder):
                connection = sqlite3.connect(folder / "study.sqlite")
            try:
                with _clear_errors(folder):
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=NORMAL")
                    connection.execute(f"PRAGMA cache_size=-{_CACHE}")
                    connection.executescript(_SCHEMA)
                    store = cls(connection)
                    if not store._has_origins():
                        connection.execute("ALTER TABLE trials ADD COLUMN origin TEXT NOT NULL DEFAULT '{}'")
                    yield store
            finally:
                connection.close()
        finally:
            lock.release()

    @classmethod
    @contextmanager
    def reading(cls, folder: Path) -> Iterator[Self]:
        """Open for reading, also while another process writes. Raises UserError when nothing was run yet."""
        path = folder / "study.sqlite"
        if not path.exists():
            raise UserError("the study has results", f"none in {folder}", "Run it first: esr run STUDY")
        with _clear_errors(folder):
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            with _clear_errors(folder):
                yield cls(connection)
        finally:
            connection.close()

    # ---- meta and small records

    def meta(self, key: str) -> str | None:
        """A value of the meta table, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Write a value of the meta table."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def record(self, kind: str, key: str) -> Any | None:
        """A stored result of a stage (JSON), or None when that stage has not finished for this key."""
        row = self._db.execute("SELECT value FROM records WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def records(self, kind: str) -> dict[str, Any]:
        """All stored records of a kind by key, in the order they were first written."""
        rows = self._db.execute("SELECT key, value FROM records WHERE kind = ? ORDER BY rowid", (kind,))
        return {key: json.loads(value) for key, value in rows}

    def set_record(self, kind: str, key: str, value: Any) -> None:
        """Store the result of a stage."""
        self._write(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (kind, key, json.dumps(value)),
        )

    def forget(self, kind: str) -> None:
        """Remove all stored records of a kind."""
        self._write("DELETE FROM records WHERE kind = ?", (kind,))

    # ---- responses, trials, grades

    def add_trials(self, rows: list[TrialRow]) -> None:
        """Store trials; those already there are left as they are."""
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        r.key,
                        r.purpose,
                        r.condition,
                        r.direction,
                        r.prompt_index,
                        r.prompt,
                        r.seed,
                        r.boost,
                        r.response,
                        json.dumps({name: value for name, value in vars(r.origin).items() if value}),
                    )
                    for r in rows
                ],
            )

    def add_response(self, key: str, response: Response) -> Response:
        """Store a finished response; returns it as it will be read, so that judges see the same text in every run."""
        stored = replace(response, text=_storable(response.text))
        self._write(
            "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)",
            (
                key,
                stored.text,
                json.dumps(stored.token_ids),
                stored.finish,
                stored.steered_positions,
            ),
        )
        return stored

    def add_grade(self, response: str, judge: str, judgement: Judgement) -> None:
        """Store a judge's verdict. One that is stored stays, unless it only says that nobody was asked."""
        self._write(
            "INSERT INTO grades VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET judgement = excluded.judgement"
            " WHERE json_extract(grades.judgement, '$.reason') = 'not sampled'",
            (response, judge, json.dumps(judgement.to_json())),
        )

    def responses(self, keys: list[str]) -> dict[str, Response]:
        """The stored ones among ``keys``; ``Response.id`` is the key."""
        rows = self._select("SELECT key, token_ids, text, finish, steered_positions FROM responses WHERE key", keys)
        return {row[0]: _response(row) for row in rows}

    def grades(self, responses: list[str], judge: str) -> dict[str, Judgement]:
        """The stored verdicts of one judge among these responses."""
        rows = self._select(
            "SELECT response, judgement FROM grades WHERE response", responses, " AND judge = ?", (judge,)
        )
        return {r[0]: judgement_from_json(json.loads(r[1])) for r in rows}

    def waiting(self, judge: str) -> int:
        """How many responses that belong to a trial the judge has not judged."""
        found = self._db.execute(
            "SELECT count(DISTINCT responses.key) FROM responses JOIN trials ON trials.response = responses.key"
            " WHERE NOT EXISTS (SELECT 1 FROM grades WHERE grades.response = responses.key AND grades.judge = ?)",
            (judge,),
        )
        return int(found.fetchone()[0])

    def measured_cells(self, condition: str, judge: str) -> set[tuple[str, int, int]]:
        """The places (direction, prompt_index, seed) of a condition's trials that need no more work: there is a verdict
        of the judge, not only the mark that nobody was asked, and so a response. Reads no text."""
        rows = self._db.execute(
            "SELECT direction, prompt_index, seed FROM trials WHERE purpose = 'trial' AND condition = ?"
            " AND EXISTS (SELECT 1 FROM grades WHERE grades.response = trials.response AND judge = ?)"
            " AND trials.response NOT IN (SELECT response FROM grades INDEXED BY grades_left_out WHERE judge = ?"
            f" AND {_LEFT_OUT})",
            (condition, judge, judge),
        )
        return set(rows)

    def trial_keys(self, condition: str) -> set[str]:
        """The keys of all stored trials of a condition of the grid."""
        rows = self._db.execute("SELECT key FROM trials WHERE purpose = 'trial' AND condition = ?", (condition,))
        return {row[0] for row in rows}

    def judged_trials(self, judge: str) -> Iterator[JudgedTrial]:
        """The grid's trials that a judge has judged, in the order of ``trials``, one at a time."""
        rows = self._db.execute(
            f"SELECT {self._trial_columns()}, r.text, json_array_length(r.token_ids), r.finish, g.judgement"
            " FROM trials t JOIN responses r ON r.key = t.response"
            " JOIN grades g ON g.response = t.response AND g.judge = ?"
            f" WHERE t.purpose = 'trial' AND NOT (g.{_LEFT_OUT})"
            " ORDER BY t.condition, t.direction, t.prompt_index, t.seed, t.key",
            (judge,),
        )
        for row in rows:
            yield JudgedTrial(_trial(row[:10]), row[10], row[11], row[12], judgement_from_json(json.loads(row[13])))

    def judged_counts(self, judge: str) -> tuple[int, int]:
        """How many of the grid's responses a judge has judged, and how many of these it left unscored."""
        row = self._db.execute(
            "SELECT count(*), count(json_extract(judgement, '$.reason')) FROM grades"
            f" WHERE judge = ? AND NOT ({_LEFT_OUT})"
            " AND response IN (SELECT response FROM trials WHERE purpose = 'trial')",
            (judge,),
        ).fetchone()
        return int(row[0]), int(row[1])

    def progress(self, judge: str) -> dict[str, tuple[int, int]]:
        """Per condition of the grid: (trials with a verdict of the judge or its mark that nobody was asked, trials)."""
        rows = self._db.execute(
            "SELECT condition, sum(EXISTS (SELECT 1 FROM grades g WHERE g.response = t.response AND g.judge = ?)),"
            " count(*) FROM trials t WHERE purpose = 'trial' GROUP BY condition ORDER BY condition",
            (judge,),
        )
        return {condition: (done, planned) for condition, done, planned in rows}

    def add_marks(self, response: str, screen: tuple[int, bool], collapse: tuple[int, bool]) -> None:
        """Store what is seen in the text that judges see of a response: (version, whether the phrase screen finds a
        restart) and (version, whether it collapsed into repetition)."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO screens VALUES (?, ?, ?)", (response, *screen))
            self._db.execute("INSERT OR IGNORE INTO collapses VALUES (?, ?, ?)", (response, *collapse))

    def screens(self, version: int) -> dict[str, bool]:
        """What a version of the phrase screen found, by response."""
        return self._marks("SELECT response, restart FROM screens WHERE version = ?", "screens", version)

    def collapses(self, version: int) -> dict[str, bool]:
        """Whether responses collapsed into repetition, by a version of that rule."""
        return self._marks("SELECT response, degraded FROM collapses WHERE version = ?", "collapses", version)

    def _marks(self, sql: str, table: str, version: int) -> dict[str, bool]:
        return {key: bool(value) for key, value in self._db.execute(sql, (version,))} if self._has(table) else {}

    def drop_grades(self, judge: str, responses: list[str]) -> None:
        """Forget a judge's verdicts on these responses, so that they are asked for again."""
        with self._db:
            self._db.executemany("DELETE FROM grades WHERE judge = ? AND response = ?", [(judge, r) for r in responses])

    def add_calls(self, judge: str, calls: Sequence[Call]) -> None:
        """Store what a judge's calls have used; one about no response is stored under the empty key."""
        if calls:
            with self._db:
                self._db.executemany(
                    "INSERT INTO judge_calls VALUES (?, ?, ?, ?, ?)",
                    [(judge, c.about, c.input_tokens, c.cached_tokens, c.output_tokens) for c in calls],
                )

    def judge_calls(self) -> dict[str, tuple[int, int, int, int, int]]:
        """By judge: calls, those of which the provider counted the tokens, and the sums of input, cached and output
        tokens over these. A study of before calls were stored has none.
        """
        if not self._has("judge_calls"):
            return {}
        rows = self._db.execute(
            "SELECT judge, COUNT(*), COUNT(input_tokens), TOTAL(input_tokens), TOTAL(cached_tokens),"
            " TOTAL(output_tokens) FROM judge_calls GROUP BY judge ORDER BY judge"
        )
        return {row[0]: (row[1], row[2], int(row[3]), int(row[4]), int(row[5])) for row in rows}

    def has_trials(self) -> bool:
        """Whether the grid has any trial."""
        return self._db.execute("SELECT 1 FROM trials WHERE purpose = 'trial' LIMIT 1").fetchone() is not None

    def trials(self, purpose: str = "trial", condition: str | None = None) -> list[TrialRow]:
        """All stored trials of a purpose (and condition), in an order that does not depend on when they finished."""
        rows = self._db.execute(
            "SELECT * FROM trials WHERE purpose = ? AND condition = coalesce(?, condition)"
            " ORDER BY condition, direction, prompt_index, seed, key",
            (purpose, condition),
        )
        return [_trial(row) for row in rows]

    def unfinished(self, judge: str) -> list[tuple[TrialRow, Response | None]]:
        """The grid's trials that have no verdict of a judge, or only the mark that nobody was asked, each with its
        response, or None where that is missing."""
        rows = self._db.execute(
            f"SELECT {self._trial_columns()}, r.key, r.token_ids, r.text, r.finish, r.steered_positions"
            " FROM trials t LEFT JOIN responses r ON r.key = t.response WHERE t.purpose = 'trial' AND NOT EXISTS"
            f" (SELECT 1 FROM grades g WHERE g.response = t.response AND g.judge = ? AND NOT (g.{_LEFT_OUT}))"
            " ORDER BY t.condition, t.direction, t.prompt_index, t.seed, t.key",
            (judge,),
        )
        return [(_trial(row[:10]), None if row[10] is None else _response(row[10:])) for row in rows]

    # ---- readings

    def add_reading(self, response: str, kind: str, values: NDArray[np.float32]) -> None:
        """Store activations [tokens, latents] of a response; ``kind`` says which latents and under what."""
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(values, np.float32))
        self._write(
            "INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", (response, kind, zlib.compress(buffer.getvalue()))
        )

    def has_reading(self, response: str, kind: str) -> bool:
        """Whether a reading is stored."""
        found = self._db.execute("SELECT 1 FROM readings WHERE response = ? AND kind = ?", (response, kind))
        return found.fetchone() is not None

    def readings(self, kind: str) -> dict[str, NDArray[np.float32]]:
        """All stored activations of a kind by response, each [tokens, latents]."""
        if not self._has("readings"):
            return {}
        rows = self._db.execute("SELECT response, value FROM readings WHERE kind = ? ORDER BY response", (kind,))
        return {key: np.load(io.BytesIO(zlib.decompress(value)), allow_pickle=False) for key, value in rows}

    # ---- stages

    def add_to_stage(self, stage: str, seconds: float, tokens: int, responses: int) -> None:
        """Add wall time and work to a stage's account."""
        self._write(
            "INSERT INTO stages VALUES (?, ?, ?, ?) ON CONFLICT(stage) DO UPDATE SET"
            " seconds = seconds + excluded.seconds,"
            " tokens = tokens + excluded.tokens, responses = responses + excluded.responses",
            (stage, seconds, tokens, responses),
        )

    def stages(self) -> list[tuple[str, float, int, int]]:
        """(stage, seconds, tokens generated, responses generated), in the order they began."""
        return list(self._db.execute("SELECT stage, seconds, tokens, responses FROM stages ORDER BY rowid"))

    # ---- plumbing

    def _has(self, table: str) -> bool:
        """Whether a table is there: a study of before there was one is read as if it were empty."""
        return bool(self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone())

    def _trial_columns(self) -> str:
        """What ``_trial`` takes, of the table ``t``."""
        origin = "t.origin" if self._has_origins() else "'{}'"
        names = "key", "purpose", "condition", "direction", "prompt_index", "prompt", "seed", "boost", "response"
        return ", ".join((*(f"t.{name}" for name in names), origin))

    def _has_origins(self) -> bool:
        return "origin" in {row[1] for row in self._db.execute("PRAGMA table_info(trials)")}

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        with self._db:
            self._db.execute(sql, values)

    def _select(self, sql: str, keys: list[str], tail: str = "", values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for i in range(0, len(keys), 500):  # SQLite limits the number of variables in a statement
            part = keys[i : i + 500]
            marks = ",".join("?" * len(part))
            rows += self._db.execute(f"{sql} IN ({marks}){tail}", (*part, *values)).fetchall()
        return rows


def _response(row: tuple[Any, ...]) -> Response:
    """A row (key, token_ids, text, finish, steered_positions)."""
    return Response(row[0], tuple(json.loads(row[1])), *row[2:])


def _trial(row: tuple[Any, ...]) -> TrialRow:
    """A row of the table; one of before there were origins has none."""
    origin = Origin(**json.loads(row[9])) if len(row) > 9 else NOWHERE
    return TrialRow(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], origin)


def _storable(text: str) -> str:
    """Text as UTF-8 can hold it: a tokenizer may emit a lone surrogate, which SQLite refuses."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        message = str(error)
        if "full" in message:
            rule, remedy = (
                "the disk has room for the study",
                "Free some space and run the command again; what was stored is intact",
            )
        elif "readonly" in message or "unable to open" in message:
            rule, remedy = (
                "the study's folder is writable",
                "Change its permissions or copy the study elsewhere",
            )
        elif "disk I/O" in message:
            rule, remedy = "the disk can be read and written", "Check it and its free space, then run the command again"
        elif "locked" in message:
            rule, remedy = "no other program holds the study file", "Close it there and run the command again"
        elif any(sign in message for sign in ("not a database", "malformed", "no such table")):
            rule, remedy = "study.sqlite is an intact study file", "Restore it from a copy"
        else:
            raise
        raise UserError(rule, f"{message} in {folder}", remedy) from error
